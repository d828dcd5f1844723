//! Secrets and configs, and the services that use them.

use weft_model::id::PayloadId;
use weft_model::objects::{
    ConfigReference, FailureAction, Mount, MountType, Payload, PayloadFile, PayloadKind,
    PayloadSpec, Runtime, SecretReference, Templating, UpdateState,
};

use super::commands::refused;
use super::updates::{change, roll_back, running, state};
use super::*;

const BAD: ErrorKind = ErrorKind::BadRequest;
const CONFLICT: ErrorKind = ErrorKind::Conflict;
const NOT_FOUND: ErrorKind = ErrorKind::NotFound;

fn of(name: &str, data: &[u8]) -> PayloadSpec {
    PayloadSpec {
        name: name.to_owned(),
        data: data.to_vec().into(),
        ..PayloadSpec::default()
    }
}

impl World {
    fn add(&mut self, kind: PayloadKind, spec: PayloadSpec) -> Result<Payload, CommandError> {
        self.run(|s, now, e| create_payload(s, now, e, kind, spec))
    }

    pub(super) fn secret(&mut self, name: &str) -> PayloadId {
        let made = self.add(PayloadKind::Secret, of(name, b"hunter2"));
        made.expect("a secret").id
    }

    fn config(&mut self, name: &str) -> PayloadId {
        let made = self.add(PayloadKind::Config, of(name, b"port = 80"));
        made.expect("a config").id
    }

    pub(super) fn forget_secret(&mut self, reference: &str) -> Result<Payload, CommandError> {
        let kind = PayloadKind::Secret;
        self.run(|s, now, e| remove_payload(s, now, e, kind, reference))
    }

    fn respecify(
        &mut self,
        version: Option<u64>,
        spec: PayloadSpec,
    ) -> Result<Payload, CommandError> {
        let kind = PayloadKind::Secret;
        self.run(|s, now, e| update_payload(s, now, e, kind, "key", version, spec))
    }
}

fn file(name: &str) -> PayloadFile {
    PayloadFile {
        name: name.to_owned(),
        ..PayloadFile::default()
    }
}

/// `--secret source=NAME,target=TARGET`
fn secret(name: &str, target: &str) -> SecretReference {
    SecretReference {
        file: file(target),
        name: name.to_owned(),
        ..SecretReference::default()
    }
}

fn config(name: &str, target: &str) -> ConfigReference {
    ConfigReference {
        file: file(target),
        name: name.to_owned(),
        ..ConfigReference::default()
    }
}

pub(super) fn seeing(mut spec: ServiceSpec, secrets: &[&str]) -> ServiceSpec {
    let given = secrets.iter().map(|name| secret(name, ""));
    task_of(&mut spec).container.secrets = given.collect();
    spec
}

fn with(edit: impl FnOnce(&mut ContainerSpec)) -> ServiceSpec {
    let mut spec = spec("web", 1);
    edit(&mut task_of(&mut spec).container);
    spec
}

#[test]
fn secrets_and_configs_have_names_of_their_own() {
    use PayloadKind::{Config, Secret};
    let mut world = World::new(1);
    let key = world.secret("key");
    let app = world.config("key");
    let other = world.secret("Key");
    refused(
        world.add(Secret, of("key", b"x")),
        CONFLICT,
        "secret key already exists",
    );
    refused(
        world.add(Config, of("key", b"x")),
        CONFLICT,
        "config key already exists",
    );
    let state = &world.state;
    let find = |kind, reference: &str| state.find_payload(kind, reference).map(|p| p.id.clone());
    assert_eq!(find(Secret, "key"), Ok(key.clone()));
    assert_eq!(find(Secret, "Key"), Ok(other));
    assert_eq!(find(Config, "key"), Ok(app.clone()));
    assert_eq!(find(Secret, key.as_str()), Ok(key.clone()));
    assert_eq!(find(Secret, &key.as_str()[..20]), Ok(key.clone()));
    for (kind, reference, says) in [
        (Secret, "KEY", "secret not found: KEY".to_owned()),
        (Secret, "", "secret not found: ".to_owned()),
        (Config, key.as_str(), format!("config not found: {key}")),
        (
            Secret,
            &app.as_str()[..20],
            format!("secret not found: {}", &app.as_str()[..20]),
        ),
    ] {
        let error = find(kind, reference).expect_err("nothing");
        assert_eq!((error.kind, error.message), (NOT_FOUND, says));
    }
    let of_kind = |kind| state.payloads_of(kind).count();
    assert_eq!((of_kind(Secret), of_kind(Config)), (2, 1));
    assert!(!format!("{state:?}").contains("hunter2"));
}

#[test]
fn what_cannot_be_a_secret_or_a_config_is_refused_in_dockers_words() {
    use PayloadKind::{Config, Secret};
    let mut world = World::new(1);
    let template = |driver: &str, data: &[u8]| PayloadSpec {
        templating: Some(Templating {
            name: driver.to_owned(),
        }),
        ..of("t", data)
    };
    let labelled = PayloadSpec {
        labels: BTreeMap::from([("a b".to_owned(), String::new())]),
        ..of("key", b"x")
    };
    let of_secrets = "secret data must be larger than 0 and less than 512000 bytes";
    let of_configs = "config data must be larger than 0 and less than 1024000 bytes";
    for (kind, spec, says) in [
        (Secret, of("key", b""), of_secrets),
        (Secret, of("key", &[7; 512_000]), of_secrets),
        (Config, of("app", b""), of_configs),
        (Config, of("app", &[7; 1_024_000]), of_configs),
        (Secret, of("a/b", b"x"), "invalid secret name \"a/b\""),
        (Config, of("", b"x"), "invalid config name \"\""),
        (Secret, labelled, "invalid label"),
        (
            Config,
            template("jinja", b"x"),
            "template driver \"jinja\" is not known: give --template-driver golang, or leave it out",
        ),
        (
            Config,
            template("golang", b"{{nope}}"),
            "line 1: the action cannot be read",
        ),
    ] {
        refused(world.add(kind, spec), BAD, says);
    }
    assert!(world.state.payloads.is_empty(), "nothing half-made");
    world.add(Secret, of("key", &[7; 511_999])).expect("fits");
    world
        .add(Config, template("golang", b"{{secret \"key\"}}"))
        .expect("a template");
    world
        .add(Config, of("u", b"{{nope}}"))
        .expect("no template");
}

#[test]
fn all_of_them_have_to_fit_into_the_memory_of_managers() {
    let mut world = World::new(1);
    let long = vec![7; 1_000_000];
    for n in 0..33 {
        let spec = of(&format!("c{n}"), &long);
        world.add(PayloadKind::Config, spec).expect("there is room");
    }
    refused(
        world.add(PayloadKind::Config, of("c33", &long)),
        CONFLICT,
        "would have 34000000 bytes, and may have 33554432: remove some that no service uses",
    );
    world.secret("small");
}

#[test]
fn labels_alone_can_change() {
    let mut world = World::new(1);
    world.secret("key");
    let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    let labelled = |data: &[u8]| PayloadSpec {
        labels: labels.clone(),
        ..of("key", data)
    };
    let read = world.respecify(None, of("key", b"")).expect("as it is");
    assert_eq!(read.meta.version.index, 1, "nothing changes");
    let version = Some(read.meta.version.index);
    let changed = world.respecify(version, labelled(b"")).expect("labels");
    assert_eq!(changed.spec.labels, labels);
    assert_eq!(changed.spec.data.expose(), b"hunter2");
    assert_eq!(changed.meta.version.index, 2);
    let same = world.respecify(None, labelled(b"hunter2"));
    assert_eq!(same, Ok(changed));
    refused(
        world.respecify(version, of("key", b"")),
        CONFLICT,
        "update out of sequence: it was read at version 1 and is at 2",
    );
    let only = "only updates to Labels are allowed";
    refused(world.respecify(None, labelled(b"hunter3")), BAD, only);
    refused(world.respecify(None, of("other", b"")), BAD, only);
    let template = PayloadSpec {
        templating: Some(Templating {
            name: "golang".to_owned(),
        }),
        ..labelled(b"")
    };
    refused(world.respecify(None, template), BAD, only);
}

#[test]
fn what_a_service_uses_cannot_be_removed() {
    let mut world = World::new(1);
    let id = world.secret("key");
    world.create(seeing(spec("web", 1), &["key"])).expect("web");
    refused(
        world.forget_secret("key"),
        CONFLICT,
        "secret 'key' is in use by the following service: web",
    );
    world.create(seeing(spec("api", 0), &["key"])).expect("api");
    refused(
        world.forget_secret("key"),
        CONFLICT,
        "secret 'key' is in use by the following services: api, web",
    );
    for name in ["web", "api"] {
        world
            .change(|s, now, e| remove_service(s, now, e, name))
            .expect("a service");
    }
    // Tasks that are to stop keep what they see.
    let gone = world.forget_secret(id.as_str()).expect("nobody uses it");
    assert_eq!(gone.id, id);
    let error = world.forget_secret("key").expect_err("gone");
    assert_eq!(error.message, "secret not found: key");
    world.secret("key");
}

#[test]
fn references_get_ids_and_names_and_stay_in_order() {
    let mut world = World::new(1);
    let (a, b, app) = (world.secret("a"), world.secret("b"), world.config("app"));
    let asked = with(|container| {
        let by_id = SecretReference {
            id: a.clone(),
            ..secret("of-before", "first")
        };
        container.secrets = vec![secret("b", ""), by_id];
        container.configs = vec![config("app", "/etc/app.conf")];
    });
    let made = world.create(asked).expect("a service");
    let container = &made.spec.task.container;
    let seen = container.payloads();
    let seen: Vec<_> = seen.map(|one| (one.id, one.name, one.target())).collect();
    assert_eq!(
        seen,
        [
            (&b, "b", "/run/secrets/b".to_owned()),
            (&a, "a", "/run/secrets/first".to_owned()),
            (&app, "app", "/etc/app.conf".to_owned()),
        ]
    );
    world.run_tasks();
    let task = world.wanted("web").remove(0).id;
    // What is the same, by its names alone, makes no other tasks.
    change(&mut world, "web", |spec| {
        for secret in &mut task_of(spec).container.secrets {
            secret.id = PayloadId::default();
        }
    })
    .expect("the same");
    assert_eq!(world.wanted("web").remove(0).id, task);
    change(&mut world, "web", |spec| {
        task_of(spec).container.configs.clear();
    })
    .expect("without a config");
    world.run_tasks();
    assert_ne!(world.wanted("web").remove(0).id, task);
    world
        .run(|s, now, e| remove_payload(s, now, e, PayloadKind::Config, "app"))
        .expect("nobody uses it");
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn files_that_cannot_be_are_refused() {
    let mut world = World::new(1);
    let large = of("large", &[b'x'; 500_999]);
    world.add(PayloadKind::Secret, large).expect("a secret");
    let (a, _) = (world.secret("a"), world.secret("b"));
    world.config("app");
    let with_file = |edit: &dyn Fn(&mut PayloadFile)| {
        with(|container| {
            let mut one = secret("a", "");
            edit(&mut one.file);
            container.secrets = vec![one];
        })
    };
    let both = |one: &str, other: &str| {
        with(|container| {
            container.secrets = vec![secret("a", one)];
            container.configs = vec![config("app", other)];
        })
    };
    let mounted = |target: &str| {
        let mut spec = with(|container| {
            container.image = "nginx".to_owned();
            container.args.clear();
            container.secrets = vec![secret("a", "")];
            container.mounts = vec![Mount {
                kind: MountType::Tmpfs,
                target: target.to_owned(),
                ..Mount::default()
            }];
        });
        task_of(&mut spec).runtime = Runtime::Container;
        spec
    };
    let of_other_kind = format!("config not found: {a}");
    let secrets = |given: Vec<SecretReference>| with(|container| container.secrets = given);
    for (spec, kind, says) in [
        (
            secrets(vec![secret("nope", "")]),
            NOT_FOUND,
            "secret not found: nope",
        ),
        (
            with(|container| container.configs = vec![config("a", "")]),
            NOT_FOUND,
            "config not found: a",
        ),
        (
            with(|container| {
                container.configs = vec![ConfigReference {
                    id: a.clone(),
                    ..config("", "x")
                }];
            }),
            NOT_FOUND,
            of_other_kind.as_str(),
        ),
        (
            secrets(vec![secret("", "x")]),
            BAD,
            "malformed secret reference",
        ),
        (
            secrets(vec![secret("a", ""), secret("b", "a")]),
            BAD,
            "secret references 'a' and 'b' have a conflicting target: '/run/secrets/a'",
        ),
        (
            both("", "/run/./secrets//a"),
            BAD,
            "secret reference 'a' and config reference 'app' have a conflicting target",
        ),
        (
            both("/etc/app", "/etc/app/x"),
            BAD,
            "have a conflicting target: '/etc/app/x'",
        ),
        (
            mounted("/run/secrets/a/"),
            BAD,
            "duplicate mount point: /run/secrets/a/: secret 'a' is to be there as well",
        ),
        (
            with_file(&|file| file.name = "../../etc/passwd".to_owned()),
            BAD,
            "it must not have \"..\" in it",
        ),
        (
            with_file(&|file| file.name = "/".to_owned()),
            BAD,
            "it has to name a file",
        ),
        (
            with_file(&|file| file.name = "/etc/".to_owned()),
            BAD,
            "it has to name a file",
        ),
        (
            with_file(&|file| file.name = "a\0b".to_owned()),
            BAD,
            "no control characters",
        ),
        (
            with_file(&|file| file.uid = "www-data".to_owned()),
            BAD,
            "invalid uid \"www-data\" of secret 'a': write a number",
        ),
        (
            with_file(&|file| file.gid = String::new()),
            BAD,
            "invalid gid \"\" of secret 'a'",
        ),
        (
            with_file(&|file| file.gid = "4294967295".to_owned()),
            BAD,
            "invalid gid \"4294967295\" of secret 'a'",
        ),
        (
            with_file(&|file| file.mode = 0o10_000),
            BAD,
            "invalid mode 10000 of secret 'a': write 0 to 7777",
        ),
        (
            secrets((0..1001).map(|n| secret("a", &format!("f{n}"))).collect()),
            BAD,
            "1001 secrets and configs are too many: a task may have 1000",
        ),
        (
            secrets((0..67).map(|n| secret("large", &format!("f{n}"))).collect()),
            BAD,
            "the secrets and configs of a task come to 33566933 bytes",
        ),
    ] {
        refused(world.create(spec), kind, says);
    }
    world.create(both("x", "/etc/x")).expect("a host task");
    world
        .change(|s, now, e| remove_service(s, now, e, "web"))
        .expect("it is there");
    world.run_tasks();
    world.create(mounted("/run/secrets")).expect("a folder");
}

#[test]
fn another_secret_makes_other_tasks_and_the_way_back_needs_the_first_one() {
    let mut world = World::new(1);
    world.secret("old");
    world.secret("new");
    world.create(seeing(spec("web", 2), &["old"])).expect("web");
    world.run_tasks();
    let rotate = |world: &mut World, from: &str, to: &str| {
        let to = secret(to, from);
        change(world, "web", |spec| {
            task_of(spec).container.secrets = vec![to];
        })
    };
    rotate(&mut world, "old", "new").expect("a rotation");
    assert_eq!(running(&world, "web"), (0, 1), "one is replaced");
    world.run_tasks();
    assert_eq!(running(&world, "web"), (2, 0));
    roll_back(&mut world, "web").expect("it is there yet");
    world.run_tasks();
    let sees = |world: &World| {
        let task = world.wanted("web").remove(0);
        task.spec.container.secrets[0].name.clone()
    };
    assert_eq!(sees(&world), "old");
    rotate(&mut world, "old", "new").expect("once more");
    world.run_tasks();
    world.forget_secret("old").expect("nobody uses it now");
    // One of the same name has other bytes.
    world.secret("old");
    refused(
        roll_back(&mut world, "web"),
        BAD,
        "secret old of service web was removed: the service cannot be again what it was with it",
    );
    assert_eq!(sees(&world), "new");
}

#[test]
fn an_update_that_fails_stops_where_the_way_back_is_gone() {
    let mut world = World::new(1);
    world.secret("old");
    world.secret("new");
    let mut web = seeing(spec("web", 1), &["old"]);
    web.update.failure_action = FailureAction::Rollback;
    world.create(web).expect("web");
    world.run_tasks();
    change(&mut world, "web", |spec| {
        task_of(spec).container.secrets = vec![secret("new", "old")];
    })
    .expect("an update");
    world.forget_secret("old").expect("nobody uses it now");
    // The old one ends, and the new one fails.
    let old = world.state.tasks.values().find(|t| !t.is_wanted());
    let old = old.expect("it is told to stop").id.clone();
    world.report(&old, TaskState::Shutdown);
    let new = world.wanted("web").remove(0).id;
    world.report(&new, TaskState::Failed);
    world.advance(5000);
    assert_eq!(state(&world, "web"), UpdateState::Paused);
    let service = world.state.find_service("web").expect("web");
    let status = service.update_status.as_ref().expect("a status");
    let says = "secret old of service web was removed";
    assert!(status.message.contains(says), "{}", status.message);
}

#[test]
fn a_swarm_that_begins_again_from_a_backup_has_them() {
    let mut world = World::new(1);
    let id = world.secret("key");
    world.create(seeing(spec("web", 1), &["key"])).expect("web");
    let (state, now) = (&world.state, world.now);
    let restored = restore(state, now, &mut world.entropy, node(9), &description(9));
    let changes = restored.expect("a backup").changes;
    world.state.apply(&changes);
    let found = world.state.find_payload(PayloadKind::Secret, "key");
    let found = found.expect("it is there");
    assert_eq!(
        (&found.id, found.spec.data.expose()),
        (&id, &b"hunter2"[..])
    );
}

#[test]
fn nodes_are_given_what_their_tasks_see_and_orders_do_not_change_with_it() {
    let mut world = World::new(1);
    let mut book = OrderBook::default();
    book.update(&world.state);
    let before = (book.shared_version(), book.own_version(&node(1)));
    let id = world.secret("key");
    assert_eq!(book.payload(&id), None, "the book is older");
    assert_eq!(book.payload_bytes(&id), None);
    assert_eq!(book.update(&world.state), SharedNews::Same);
    assert_eq!((book.shared_version(), book.own_version(&node(1))), before);
    let content = book.payload(&id).expect("it is there");
    assert_eq!((&content.id, content.data.expose()), (&id, &b"hunter2"[..]));
    assert_eq!(book.payload_bytes(&id), Some(content.data.len()));
    assert!(!content.template);
    world.create(seeing(spec("web", 1), &["key"])).expect("web");
    book.update(&world.state);
    let own = book.own(&node(1)).expect("a member");
    let seen = own.tasks[0].spec.container.payloads();
    assert_eq!(seen.map(|one| one.id).collect::<Vec<_>>(), [&id]);
    let orders = serde_json::to_string(&own).expect("written");
    // Neither as it is nor in base64.
    assert!(!orders.contains("hunter2") && !orders.contains("aHVudGVyMg"));
}
