//! Conversations: from the user of any manager, by the one that leads, to nodes and back.

use tokio::sync::mpsc;
use weft_model::api::{LogItem, LogLine, LogStream, LogsQuery, Volume, VolumeAnswer, VolumeAsk};
use weft_model::exec::{Exec, Frame};
use weft_model::talk::{Question, Talk};

use super::managers::beside;
use super::*;
use crate::exchange::Exchange;
use crate::session::Answerer;

/// Tasks write a line each at these moments; a program says what is said to it.
fn answering(moments: &'static [u64]) -> Answerer {
    Answerer::new(move |question, mut exchange: Exchange| async move {
        match question {
            Question::Logs { tasks, .. } => {
                let mut lines = Vec::new();
                for task in &tasks {
                    lines.extend(moments.iter().map(|time| (task.clone(), *time)));
                }
                for (task, time) in lines {
                    let line = LogItem::Line(LogLine {
                        task,
                        stream: LogStream::Stdout,
                        time,
                        line: time.to_string(),
                    });
                    let mut line = serde_json::to_vec(&line).unwrap();
                    line.push(b'\n');
                    exchange.outgoing.send(line.into()).await.unwrap();
                }
            }
            Question::Exec { exec, .. } => {
                assert_eq!(exec.args, ["cat"]);
                let said = exchange.incoming.recv().await.unwrap().unwrap();
                exchange.outgoing.send(said).await.unwrap();
                let last = Frame::Exit(3).to_bytes();
                exchange.outgoing.send(last.into()).await.unwrap();
            }
            Question::Volumes { asked } => {
                assert_eq!(asked, VolumeAsk::List);
                let answer = VolumeAnswer {
                    node: "it claims to be another one".to_owned(),
                    volumes: vec![Volume {
                        name: "data".to_owned(),
                        ..Volume::default()
                    }],
                    ..VolumeAnswer::default()
                };
                let said = serde_json::to_vec(&answer).unwrap();
                exchange.outgoing.send(said.into()).await.unwrap();
            }
        }
        exchange.finish().await;
    })
}

async fn whole(mut exchange: Exchange) -> Vec<u8> {
    let mut said = Vec::new();
    while let Some(piece) = timeout(LIMIT, exchange.incoming.recv()).await.unwrap() {
        said.extend_from_slice(&piece.unwrap());
    }
    said
}

fn logs(of: &str) -> Talk {
    Talk::Logs {
        reference: of.to_owned(),
        query: LogsQuery::default(),
    }
}

/// What nodes answer of their volumes.
async fn volumes(manager: &Manager, node: Option<&str>) -> Vec<VolumeAnswer> {
    let talk = Talk::Volumes {
        node: node.map(str::to_owned),
        asked: VolumeAsk::List,
    };
    let said = whole(manager.talk(talk).await.unwrap()).await;
    let mut lines = said.split(|byte| *byte == b'\n').filter(|l| !l.is_empty());
    let count: usize = serde_json::from_slice(lines.next().unwrap()).unwrap();
    let answers: Vec<VolumeAnswer> = lines
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert_eq!(answers.len(), count);
    answers
}

/// What is told of `web`: moments, and what is missing.
async fn told(manager: &Manager) -> (Vec<u64>, Vec<String>) {
    let said = whole(manager.talk(logs("web")).await.unwrap()).await;
    let lines = said.split(|byte| *byte == b'\n').filter(|l| !l.is_empty());
    let (mut moments, mut missing) = (Vec::new(), Vec::new());
    for line in lines {
        match serde_json::from_slice(line).unwrap() {
            LogItem::Line(line) => moments.push(line.time),
            LogItem::Incomplete(why) => missing.push(why),
            LogItem::Task(_) | LogItem::CaughtUp => {}
        }
    }
    (moments, missing)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_manager_has_nodes_asked_for_what_they_alone_have() {
    let (manager, first) = cluster().await;
    let worker = Node::join(&manager, "w1").await;
    worker.connected().await;
    manager.create_service(service("web", 2)).await.unwrap();
    let orders = worker.orders(|o| o.own.tasks.len() == 1).await;
    first.orders(|o| o.own.tasks.len() == 1).await;
    // Nobody answers yet.
    let (moments, missing) = told(&manager).await;
    assert_eq!((moments.len(), missing.len()), (0, 2), "{missing:?}");
    first.session.answer_with(answering(&[1, 4, 5]));
    worker.session.answer_with(answering(&[2, 3, 6]));
    let all = async {
        loop {
            let (moments, missing) = told(&manager).await;
            if missing.is_empty() {
                return moments;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let all = timeout(LIMIT, all).await.expect("nodes listen");
    assert_eq!(all, [1, 2, 3, 4, 5, 6]);
    let (second, _dir) = beside(&manager, "m2").await;
    assert_eq!(told(&second).await.0, all);
    let unknown = second.talk(logs("nosuch")).await.unwrap_err();
    assert_eq!(unknown.message, "no such task or service: nosuch");
    assert_eq!(unknown.kind, ErrorKind::NotFound);

    let id = worker.session.identity().node_id().to_string();
    for manager in [&manager, &second] {
        let answers = volumes(manager, Some(&id)).await;
        assert_eq!(answers.len(), 1);
        let (answer, volume) = (&answers[0], &answers[0].volumes[0]);
        assert_eq!((volume.name.as_str(), &volume.node), ("data", &answer.node));
        assert!(!answer.node.contains("claims"), "{answer:?}");
        // One without a session is named, and keeps nobody from answering.
        let answers = volumes(manager, None).await;
        let had = answers.iter().filter(|answer| answer.refused.is_none());
        assert!(had.count() >= 2, "{answers:?}");
    }
    let nosuch = Talk::Volumes {
        node: Some("nosuch".to_owned()),
        asked: VolumeAsk::List,
    };
    let unknown = manager.talk(nosuch).await.unwrap_err();
    assert_eq!(unknown.kind, ErrorKind::NotFound);

    let task = orders.own.tasks[0].id.clone();
    let exec_in = |reference: &str| Talk::Exec {
        reference: reference.to_owned(),
        exec: Exec {
            args: vec!["cat".to_owned()],
            ..Exec::default()
        },
    };
    let exec = || exec_in(task.as_str());
    let early = manager.talk(exec()).await.unwrap_err();
    assert!(early.message.contains("does not run"), "{early}");
    let none = "web is a service, and none of its tasks runs: `weft service ps web` shows why";
    let early = manager.talk(exec_in("web")).await.unwrap_err();
    assert_eq!((early.kind, &*early.message), (ErrorKind::NotFound, none));
    let status = TaskStatus {
        state: TaskState::Running,
        ..TaskStatus::default()
    };
    worker.session.report(task.clone(), status);
    let runs = |s: &ClusterState| s.tasks[&task].status.state == TaskState::Running;
    state(&manager, runs).await;
    let slot = orders.own.tasks[0].slot;
    let which = format!("web is a service; its tasks: web.{slot} on w1: weft exec web.{slot} CMD");
    for manager in [&manager, &second] {
        let service = manager.talk(exec_in("web")).await.unwrap_err();
        assert_eq!(
            (service.kind, service.message),
            (ErrorKind::NotFound, which.clone())
        );
        let nobody = manager.talk(exec_in("nosuch")).await.unwrap_err();
        assert_eq!(nobody.message, "no such task: nosuch");
    }
    for manager in [&manager, &second] {
        let exchange = manager.talk(exec()).await.unwrap();
        exchange.outgoing.send("hello".into()).await.unwrap();
        let said = whole(exchange).await;
        assert_eq!(said, [&b"hello"[..], &Frame::Exit(3).to_bytes()].concat());
    }
    second.stop().await;
    manager.stop().await;
}

/// Who follows output reads for days: a program starts all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_that_is_followed_keeps_nobody_from_a_program() {
    const FOLLOWED: usize = 12;
    let (manager, first) = cluster().await;
    manager.create_service(service("web", 1)).await.unwrap();
    let orders = first.orders(|o| o.own.tasks.len() == 1).await;
    let task = orders.own.tasks[0].id.clone();
    let status = TaskStatus {
        state: TaskState::Running,
        ..TaskStatus::default()
    };
    first.session.report(task.clone(), status);
    let runs = |s: &ClusterState| s.tasks[&task].status.state == TaskState::Running;
    state(&manager, runs).await;

    let (asked, mut heard) = mpsc::unbounded_channel();
    let answerer = Answerer::new(move |question, mut exchange: Exchange| {
        let asked = asked.clone();
        async move {
            if let Question::Logs { .. } = question {
                asked.send(()).unwrap();
                // Until nobody reads.
                while exchange.incoming.recv().await.is_some() {}
                return;
            }
            let last = Frame::Exit(3).to_bytes();
            exchange.outgoing.send(last.into()).await.unwrap();
            exchange.finish().await;
        }
    });
    first.session.answer_with(answerer);
    let follow = || Talk::Logs {
        reference: "web".to_owned(),
        query: LogsQuery {
            follow: true,
            ..LogsQuery::default()
        },
    };
    let mut followed = Vec::new();
    let all = async {
        while followed.len() < FOLLOWED {
            let exchange = manager.talk(follow()).await.unwrap();
            // The node may not listen yet.
            if timeout(Duration::from_secs(1), heard.recv()).await.is_ok() {
                followed.push(exchange);
            }
        }
    };
    timeout(LIMIT, all).await.expect("the node is asked");
    let exec = Talk::Exec {
        reference: task.to_string(),
        exec: Exec {
            args: vec!["true".to_owned()],
            ..Exec::default()
        },
    };
    let said = whole(manager.talk(exec).await.unwrap()).await;
    assert_eq!(said, Frame::Exit(3).to_bytes());
    drop(followed);
    manager.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_output_of_a_rejected_task_is_why_it_was() {
    let (manager, first) = cluster().await;
    manager.create_service(service("web", 1)).await.unwrap();
    let orders = first.orders(|o| o.own.tasks.len() == 1).await;
    let task = orders.own.tasks[0].id.clone();
    let status = TaskStatus {
        state: TaskState::Rejected,
        err: "no such program".to_owned(),
        ..TaskStatus::default()
    };
    first.session.report(task.clone(), status);
    let rejected = |s: &ClusterState| {
        let known = s.tasks.get(&task);
        known.is_some_and(|known| known.status.state == TaskState::Rejected)
    };
    state(&manager, rejected).await;
    let (moments, missing) = told(&manager).await;
    assert!(moments.is_empty(), "{moments:?}");
    let expected = format!("task {task} was rejected: no such program");
    assert!(missing.contains(&expected), "{missing:?}");
    manager.stop().await;
}
