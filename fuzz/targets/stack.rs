//! A stack file of a stranger: read, written out, planned for a swarm. Nothing panics or takes long
//! (`-timeout` of `fuzz/run`); what is written out is read as the same stack and comes to the same plan;
//! errors name their places and are short. Input: the file, and behind a line `%%%` another one over it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_stack::model::Stack;
use weft_stack::{
    Deployment, Interpolation, Origin, Problems, Source, Surroundings, deployment, load, render,
};

/// What stands between two files.
const BETWEEN: &str = "\n%%%\n";
/// Lines of errors that are told, and of a number of more of them.
const LINES: usize = 101;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let (one, other) = text.split_once(BETWEEN).unwrap_or((&*text, ""));
    let mut sources = vec![Source {
        name: "one.yml",
        text: one,
    }];
    if !other.is_empty() {
        sources.push(Source {
            name: "other.yml",
            text: other,
        });
    }
    for interpolation in [Interpolation::Done, Interpolation::Skipped] {
        match read(&sources, interpolation) {
            Ok(stack) => accepted(&stack),
            Err(problems) => refused(&problems),
        }
    }
});

fn read(sources: &[Source<'_>], interpolation: Interpolation) -> Result<Stack, Problems> {
    let surroundings = Surroundings {
        variable: &|name| match name {
            "A" => Some("1".to_owned()),
            "NAME" => Some("web".to_owned()),
            "EMPTY" => Some(String::new()),
            "ODD" => Some("a: b #\u{202e}\n$A".to_owned()),
            _ => None,
        },
        file: &|path| match path {
            "/srv/a.env" => Ok("A=2\n# b\nB\nNAME=x=y\n".to_owned()),
            _ => Err("no such file".to_owned()),
        },
        folder: "/srv",
        home: Some("/root"),
        interpolation,
    };
    load(sources, &surroundings).map(|loaded| loaded.stack)
}

fn refused(problems: &Problems) {
    assert!(!problems.0.is_empty());
    let told = problems.to_string();
    assert!(!told.is_empty());
    // A text of the file may have ends of lines of its own.
    let ends = problems.0.iter().map(|problem| problem.to_string());
    let ends: usize = ends.map(|line| line.lines().count()).sum();
    assert!(told.lines().count() <= ends.max(LINES));
}

fn accepted(stack: &Stack) {
    let out = render(stack);
    let plan = deployment(stack, "shop");
    assert_eq!(plan, deployment(stack, "shop"));
    match &plan {
        Ok(plan) => planned(stack, plan),
        Err(problems) => refused(problems),
    }
    let again = [Source {
        name: "again.yml",
        text: &out,
    }];
    let surroundings = Surroundings {
        variable: &|_| None,
        file: &|_| Err("no such file".to_owned()),
        folder: "/srv",
        home: None,
        interpolation: Interpolation::Skipped,
    };
    let again = match load(&again, &surroundings) {
        Ok(loaded) => loaded.stack,
        // Short forms are longer when they are written out.
        Err(problems) => {
            let told = problems.to_string();
            assert!(
                told.contains("more than") || told.contains("may have"),
                "{told}\n{out}"
            );
            return;
        }
    };
    assert_eq!(render(&again), out);
    match (&plan, &deployment(&again, "shop")) {
        (Ok(one), Ok(other)) => assert_eq!(services(one), services(other)),
        (one, other) => assert_eq!(one.is_ok(), other.is_ok()),
    }
}

/// What services are asked for, by their names.
fn services(plan: &Deployment) -> Vec<(&str, String)> {
    let services = plan.services.iter();
    let mut services: Vec<(&str, String)> = services
        .map(|service| (service.key.as_str(), format!("{:?}", service.spec)))
        .collect();
    services.sort();
    services
}

fn planned(stack: &Stack, plan: &Deployment) {
    assert_eq!(plan.services.len(), stack.services.len());
    let mut before: Vec<&str> = Vec::new();
    for service in &plan.services {
        assert!(service.spec.name.starts_with("shop_"));
        assert!(
            service
                .depends_on
                .iter()
                .all(|(name, _)| before.contains(&name.as_str()))
        );
        let networks = &service.spec.task.networks;
        assert!(!networks.is_empty());
        for network in networks {
            let is_known = plan
                .networks
                .iter()
                .any(|made| made.spec.name == network.target);
            assert!(is_known, "{}", network.target);
        }
        for used in service.spec.task.container.payloads() {
            let payloads = plan.secrets.iter().chain(&plan.configs);
            let mut names = payloads.map(|payload| payload.spec.name.as_str());
            assert!(names.any(|name| name == used.name), "{}", used.name);
        }
        before.push(&service.spec.name);
    }
    for payload in plan.secrets.iter().chain(&plan.configs) {
        assert!(payload.spec.data.is_empty());
        if let Origin::File(path) = &payload.origin {
            assert!(path.starts_with('/'), "{path}");
        }
    }
}
