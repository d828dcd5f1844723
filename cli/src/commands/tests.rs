use std::sync::Arc;

use jiff::Timestamp;
use weft_model::api::{
    DropCount, Drops, NodeRow, PortDrops, ServiceDetail, ServiceStatus, TaskRow, TlsStatus,
};
use weft_model::id::{NodeId, ServiceId, TaskId};
use weft_model::objects::*;

use super::*;
use crate::args::FormatArgs;

fn node(name: &str, id: &str, role: Role, state: NodeState) -> NodeRow {
    NodeRow {
        node: Node {
            id: NodeId::from(id),
            meta: Meta::default(),
            spec: NodeSpec {
                role,
                ..NodeSpec::default()
            },
            description: Description {
                hostname: name.to_owned(),
                engine: Engine {
                    version: "0.1.0".to_owned(),
                    runtimes: Vec::new(),
                },
                ..Description::default()
            },
            status: NodeStatus {
                state,
                message: String::new(),
                addr: "10.77.0.1".parse().unwrap(),
                impaired: None,
            },
            manager_status: (role == Role::Manager).then(|| ManagerStatus {
                leader: true,
                reachability: Reachability::Reachable,
                addr: "10.77.0.1:2377".parse().unwrap(),
            }),
            data_path_addr: "10.77.0.1".parse().unwrap(),
            gossip_port: 7946,
            certified: 0,
            certified_by: String::new(),
            ingress_ip: None,
        },
        is_self: role == Role::Manager,
        gossip: None,
        tls: TlsStatus::Ready,
        cloned: None,
    }
}

fn spec(replicas: u32) -> ServiceSpec {
    let container = ContainerSpec {
        image: "host".to_owned(),
        args: vec!["server".to_owned()],
        ..ContainerSpec::default()
    };
    ServiceSpec {
        name: "web".to_owned(),
        mode: ServiceMode::Replicated { replicas },
        task: Arc::new(TaskSpec {
            container,
            ..TaskSpec::default()
        }),
        endpoint: EndpointSpec {
            ports: vec![PortSpec {
                published: 8000,
                target: 80,
                ..PortSpec::default()
            }],
            ..EndpointSpec::default()
        },
        ..ServiceSpec::default()
    }
}

pub(super) fn detail(replicas: u32) -> ServiceDetail {
    ServiceDetail {
        service: Service {
            id: ServiceId::from("svc0000000000000000000000"),
            meta: Meta::default(),
            endpoint: ServiceEndpoint {
                ports: spec(replicas).endpoint.ports,
                ..ServiceEndpoint::default()
            },
            spec: spec(replicas),
            previous_spec: None,
            update_status: None,
            job_status: None,
            rebalancing: None,
            homes: Vec::new(),
        },
        status: ServiceStatus {
            running: 1,
            outdated: 0,
            desired: replicas,
            completed: 0,
        },
        port_errors: Vec::new(),
        waiting: Vec::new(),
    }
}

pub(super) fn task(
    id: &str,
    slot: u32,
    created: u64,
    desired: TaskState,
    state: TaskState,
    err: &str,
) -> TaskRow {
    TaskRow {
        task: Task {
            id: TaskId::from(id),
            meta: Meta {
                version: Version { index: 1 },
                created_at: created,
                updated_at: created,
            },
            service: ServiceId::from("svc0000000000000000000000"),
            service_name: "web".to_owned(),
            slot,
            node: Some(NodeId::from("n1")),
            spec_version: Version { index: 1 },
            job_iteration: None,
            spec: spec(2).task,
            attachments: Vec::new(),
            desired,
            status: TaskStatus {
                state,
                since: created,
                message: String::new(),
                err: err.to_owned(),
                ..TaskStatus::default()
            },
            restarts: Vec::new(),
        },
        node_name: "node1".to_owned(),
        node_down: false,
        host_ports: Vec::new(),
    }
}

#[test]
fn a_node_that_answers_and_carries_no_traffic_has_a_word_of_its_own() {
    let mut row = node("node1", "aaa", Role::Worker, NodeState::Ready);
    row.node.status.impaired = Some(Impairment {
        since: 1,
        reason: "its data plane does not run: no address".to_owned(),
    });
    let args = FormatArgs {
        format: Some("{{.Status}}: {{.Message}}".to_owned()),
        ..FormatArgs::default()
    };
    assert_eq!(
        rows::nodes(vec![row.clone()]).render(&args).unwrap(),
        "Impaired: its data plane does not run: no address\n"
    );
    row.node.status.state = NodeState::Down;
    let text = rows::nodes(vec![row]).render(&args).unwrap();
    assert!(text.starts_with("Down: "), "{text}");
}

#[test]
fn node_ls_is_dockers() {
    let rows = vec![
        node("node2", "bbb", Role::Worker, NodeState::Down),
        node("node1", "aaa", Role::Manager, NodeState::Ready),
    ];
    assert_eq!(
        rows::nodes(rows).render(&FormatArgs::default()).unwrap(),
        "\
ID      HOSTNAME   STATUS   AVAILABILITY   MANAGER STATUS   ENGINE VERSION
aaa *   node1      Ready    Active         Leader           0.1.0
bbb     node2      Down     Active                          0.1.0
"
    );
}

#[test]
fn service_ls_is_dockers() {
    assert_eq!(
        rows::services(vec![detail(3)])
            .render(&FormatArgs::default())
            .unwrap(),
        "\
ID             NAME   MODE         REPLICAS   IMAGE   PORTS
svc000000000   web    replicated   1/3        host    *:8000->80/tcp
"
    );
}

#[test]
fn service_ps_puts_old_tasks_under_new_ones() {
    let now = Timestamp::from_millisecond(7_200_000).unwrap();
    let rows = vec![
        task(
            "old",
            1,
            0,
            TaskState::Shutdown,
            TaskState::Failed,
            "task: non-zero exit (1)",
        ),
        task(
            "two",
            2,
            7_195_000,
            TaskState::Running,
            TaskState::Running,
            "",
        ),
        task(
            "new",
            1,
            7_080_000,
            TaskState::Running,
            TaskState::Running,
            "",
        ),
    ];
    assert_eq!(
        rows::tasks(rows, rows::TaskWords::default(), now)
            .render(&FormatArgs::default())
            .unwrap(),
        "\
ID    NAME        IMAGE   NODE    DESIRED STATE   CURRENT STATE           ERROR                       PORTS
new   web.1       host    node1   Running         Running 2 minutes ago
old    \\_ web.1   host    node1   Shutdown        Failed 2 hours ago      \"task: non-zero exit (1)\"
two   web.2       host    node1   Running         Running 5 seconds ago
"
    );
}

#[test]
fn drops_come_most_frequent_first() {
    let count = |reason: &str, packets| DropCount {
        reason: reason.to_owned(),
        help: format!("about {reason}"),
        packets,
    };
    let drops = Drops {
        total: vec![count("a", 1), count("b", 20)],
        ports: vec![PortDrops {
            port: "web.1".to_owned(),
            drops: vec![count("b", 20)],
        }],
    };
    let render = |by_port| drops::listing(&drops, by_port).render(&FormatArgs::default());
    assert_eq!(
        render(false).unwrap(),
        "REASON   PACKETS   MEANING\nb        20        about b\na        1         about a\n"
    );
    assert_eq!(
        render(true).unwrap(),
        "PORT    REASON   PACKETS   MEANING\nweb.1   b        20        about b\n"
    );
}

#[test]
fn progress_counts_the_newest_task_of_a_slot() {
    let rows = vec![
        task("old", 1, 0, TaskState::Shutdown, TaskState::Failed, "boom"),
        task("new", 1, 5, TaskState::Running, TaskState::Running, ""),
        task(
            "two",
            2,
            5,
            TaskState::Running,
            TaskState::Failed,
            "no such file",
        ),
    ];
    let (reader, writer) = shared();
    let mut out = Printer::to(writer);
    let mut screen = converge::Screen::default();
    let progress = converge::Progress::of(&detail(2), &rows);
    screen.show(&progress, &mut out).unwrap();
    screen.show(&progress, &mut out).unwrap();
    let rows = vec![
        rows[1].clone(),
        // One that scaling down left over has no line of its own.
        task("three", 3, 9, TaskState::Running, TaskState::Running, ""),
        task("two2", 2, 9, TaskState::Running, TaskState::Running, ""),
    ];
    let progress = converge::Progress::of(&detail(2), &rows);
    screen.show(&progress, &mut out).unwrap();
    assert_eq!(
        reader.text(),
        "\
overall progress: 1 out of 2 tasks
1/2: running
2/2: no such file
overall progress: 2 out of 2 tasks
2/2: running
"
    );
}

pub(super) fn update_status(state: UpdateState, message: &str) -> UpdateStatus {
    UpdateStatus {
        state,
        started_at: 1,
        completed_at: None,
        message: message.to_owned(),
        spec_version: Version::default(),
        slots: 2,
        failed: None,
    }
}

#[test]
fn an_update_is_over_when_the_managers_say_so() {
    let mut detail = detail(2);
    let status = update_status(UpdateState::RollbackStarted, "manually requested rollback");
    detail.service.update_status = Some(status);
    let mut old = task("two", 2, 5, TaskState::Running, TaskState::Running, "");
    Arc::make_mut(&mut old.task.spec).force_update = 1;
    let new = |name, slot| task(name, slot, 5, TaskState::Running, TaskState::Running, "");
    let (reader, writer) = shared();
    let mut out = Printer::to(writer);
    let mut screen = converge::Screen::default();
    let progress = converge::Progress::of(&detail, &[new("one", 1), old]);
    assert!(!progress.converged());
    screen.show(&progress, &mut out).unwrap();
    let rows = [new("one", 1), new("two", 2)];
    let progress = converge::Progress::of(&detail, &rows);
    assert!(!progress.converged(), "they are watched");
    let mut verifying = converge::Verifying::default();
    let says = "Waiting 5 seconds to verify that tasks are stable...";
    let policy = UpdateConfig::default();
    let line = verifying.note(&progress, &policy);
    assert_eq!(line.as_deref(), Some(says));
    assert_eq!(verifying.note(&progress, &policy), None, "once");
    screen.show(&progress, &mut out).unwrap();
    assert_eq!(
        reader.text(),
        "\
overall progress: rolling back update: 1 out of 2 tasks
1/2: running
overall progress: rolling back update: 2 out of 2 tasks
2/2: running
"
    );
    let status = update_status(UpdateState::RollbackCompleted, "rollback completed");
    detail.service.update_status = Some(status);
    assert!(converge::Progress::of(&detail, &rows).converged());
}

#[test]
fn an_update_that_is_paused_or_went_back_by_itself_is_an_error() {
    let service = |state, message: &str| Service {
        update_status: Some(update_status(state, message)),
        ..detail(2).service
    };
    let started = |message| service(UpdateState::RollbackStarted, message);
    let back = service(UpdateState::RollbackCompleted, "rollback completed");
    let by_hand = started("manually requested rollback");
    let mut told = converge::Rollback::default();
    let line = told.note(&by_hand).unwrap();
    assert_eq!(line.unwrap(), "manually requested rollback");
    assert_eq!(told.note(&by_hand).unwrap(), None, "once");
    let asked_for = Service {
        previous_spec: Some(Arc::new(spec(2))),
        ..back.clone()
    };
    assert_eq!(told.note(&asked_for).unwrap(), None);
    let mut told = converge::Rollback::default();
    told.note(&started("update rolled back due to X")).unwrap();
    let error = told.note(&back).unwrap_err().to_string();
    assert!(error.contains("update rolled back due to X"), "{error}");
    let paused = service(UpdateState::Paused, "update paused due to X");
    let error = told.note(&paused).unwrap_err().to_string();
    assert_eq!(error, "service update paused: update paused due to X");
}

/// Those that run and spread best stay, whatever their numbers.
#[test]
fn scaling_down_may_leave_any_slots() {
    let rows = vec![
        task("one", 1, 0, TaskState::Running, TaskState::Running, ""),
        task("old", 2, 0, TaskState::Remove, TaskState::Failed, "boom"),
        task("three", 3, 9, TaskState::Running, TaskState::Running, ""),
        task("four", 4, 9, TaskState::Remove, TaskState::Shutdown, ""),
    ];
    let (reader, writer) = shared();
    let progress = converge::Progress::of(&detail(2), &rows);
    converge::Screen::default()
        .show(&progress, &mut Printer::to(writer))
        .unwrap();
    assert_eq!(
        reader.text(),
        "overall progress: 2 out of 2 tasks\n1/2: running\n2/2: running\n"
    );
    assert!(progress.converged());
}

#[test]
fn nobody_waits_for_tasks_of_a_node_that_is_down() {
    let mut dead = task("dead", 2, 0, TaskState::Shutdown, TaskState::Running, "");
    let rows = |dead: &TaskRow| {
        vec![
            task("one", 1, 0, TaskState::Running, TaskState::Running, ""),
            task("two", 2, 9, TaskState::Running, TaskState::Running, ""),
            dead.clone(),
        ]
    };
    assert!(!converge::Progress::of(&detail(2), &rows(&dead)).converged());
    dead.node_down = true;
    assert!(converge::Progress::of(&detail(2), &rows(&dead)).converged());
}

#[test]
fn the_error_of_a_slot_stays_until_its_next_task_runs() {
    let err = "program \"/nope\" was not found";
    let rows = vec![
        task("old", 1, 0, TaskState::Shutdown, TaskState::Rejected, err),
        task("new", 1, 5, TaskState::Ready, TaskState::Assigned, ""),
        task("two", 2, 5, TaskState::Running, TaskState::Preparing, ""),
    ];
    let (reader, writer) = shared();
    let progress = converge::Progress::of(&detail(2), &rows);
    converge::Screen::default()
        .show(&progress, &mut Printer::to(writer))
        .unwrap();
    assert_eq!(
        reader.text(),
        format!("overall progress: 0 out of 2 tasks\n1/2: {err}\n2/2: preparing\n")
    );
}

#[test]
fn a_slot_that_fails_again_and_again_is_given_up() {
    use failures::Failures;

    let failed = |id: &str, slot, created, err: &str| {
        task(
            id,
            slot,
            created,
            TaskState::Shutdown,
            TaskState::Rejected,
            err,
        )
    };
    let mut failures = Failures::default();
    let mut rows = vec![
        failed("before", 1, 0, "old"),
        failed("earlier", 1, 1, "old"),
    ];
    assert_eq!(failures.note(&rows), None);
    for (created, id) in [(2, "a"), (3, "b")] {
        rows.push(failed(id, 1, created, "no"));
        rows.push(failed(&format!("{id}2"), 2, created, "no"));
        assert_eq!(failures.note(&rows), None);
    }
    // What happened before counts as little as what is forgotten meanwhile.
    rows.remove(0);
    rows.remove(0);
    rows.push(failed("c", 2, 9, "no such program"));
    assert_eq!(
        failures.note(&rows).as_deref(),
        Some("task web.2 failed 3 times, the last time with: no such program")
    );
}

#[test]
fn tasks_that_are_not_restarted_end_the_waiting() {
    use failures::all_over;

    let restart = |row: &mut TaskRow, condition| {
        Arc::make_mut(&mut row.task.spec).restart.condition = condition;
    };
    let ended = |id: &str, slot, state, err: &str| {
        let mut row = task(id, slot, 0, TaskState::Running, state, err);
        restart(&mut row, RestartCondition::None);
        row
    };
    let mut rows = vec![ended("a", 1, TaskState::Complete, "")];
    assert_eq!(all_over(&rows, 2, 0), None, "slot 2 is to come");
    assert_eq!(all_over(&rows, 2, 1), Some(Vec::new()));
    rows.push(ended("b", 2, TaskState::Failed, "task: non-zero exit (1)"));
    let error = "task web.2: task: non-zero exit (1)".to_owned();
    assert_eq!(all_over(&rows, 2, 0), Some(vec![error]));
    restart(&mut rows[1], RestartCondition::OnFailure);
    assert_eq!(all_over(&rows, 2, 0), None, "it is tried again");
}

/// What people type every day, in a terminal as old as it gets.
#[test]
fn tables_fit_eighty_columns_and_break_no_word() {
    use weft_model::api::{MeshReplica, Why};

    let id = "0123456789abcdefghijklmno";
    let now = Timestamp::from_millisecond(7_200_000).unwrap();
    let why = Why {
        replicas: vec![
            MeshReplica {
                name: format!("web.1.{id}"),
                node: "node-in-berlin-1".to_owned(),
                network: "ingress".to_owned(),
                ips: vec![
                    "10.0.0.8".parse().unwrap(),
                    "fd5d:8f1b:9800:1000::a00:8".parse().unwrap(),
                ],
                accepted: 123_456,
                why_not: "ejected for 12 s more: refused 5 of 5, nothing listens on 10.0.0.8:81"
                    .to_owned(),
                ..MeshReplica::default()
            };
            3
        ],
        ..Why::default()
    };
    let failed = "task: non-zero exit (1)";
    let tables = [
        rows::nodes(vec![
            node("node-in-berlin-1", id, Role::Manager, NodeState::Ready),
            node("node2", "bbb", Role::Worker, NodeState::Down),
        ]),
        rows::services(vec![detail(300)]),
        rows::tasks(
            vec![task(
                id,
                1,
                7_080_000,
                TaskState::Running,
                TaskState::Failed,
                failed,
            )],
            rows::TaskWords::default(),
            now,
        ),
        why::listing(&why, false),
    ];
    for table in tables {
        let whole = table.render(&FormatArgs::default()).unwrap();
        let fitted = table.render_in(&FormatArgs::default(), Some(80)).unwrap();
        for line in fitted.lines() {
            assert!(line.chars().count() <= 80, "{fitted}");
        }
        let words = |text: &str| {
            let mut words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            words.sort();
            words
        };
        assert_eq!(words(&fitted), words(&whole), "a word is broken: {fitted}");
    }
}

#[test]
fn one_key_has_one_value() {
    let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
    assert!(unique("label", [pair("a", "1"), pair("a", "1")]).is_ok());
    let error = unique("label", [pair("a", "1"), pair("a", "2")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "label a is given twice, as \"1\" and as \"2\"; keep one"
    );
}

/// What a printer wrote, for looking at afterwards.
#[derive(Clone, Default)]
pub(super) struct Shared(std::rc::Rc<std::cell::RefCell<Vec<u8>>>);

impl Shared {
    pub(super) fn text(&self) -> String {
        String::from_utf8(self.0.borrow().clone()).unwrap()
    }
}

impl std::io::Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

pub(super) fn shared() -> (Shared, Box<dyn std::io::Write>) {
    let shared = Shared::default();
    (shared.clone(), Box::new(shared))
}

#[test]
fn jobs_and_limits_are_shown_as_docker_shows_them() {
    let shown = |mode: ServiceMode, most: u32| {
        let mut detail = detail(5);
        detail.status.completed = 3;
        detail.service.spec.mode = mode;
        Arc::make_mut(&mut detail.service.spec.task)
            .placement
            .max_replicas = most;
        rows::replicas(&detail)
    };
    let job = ServiceMode::ReplicatedJob {
        max_concurrent: 5,
        total_completions: 9,
    };
    assert_eq!(shown(ServiceMode::Replicated { replicas: 5 }, 0), "1/5");
    assert_eq!(
        shown(ServiceMode::Replicated { replicas: 5 }, 2),
        "1/5 (max 2 per node)"
    );
    assert_eq!(shown(job, 0), "1/5 (3/9 completed)");
    assert_eq!(shown(ServiceMode::GlobalJob, 0), "1/5 (3/8 completed)");

    let mut detail = detail(1);
    detail.service.spec.mode = job;
    detail.status.completed = 8;
    let progress = converge::Progress::of(&detail, &[]);
    assert!(!progress.is_complete() && !progress.converged());
    detail.status.completed = 9;
    assert!(converge::Progress::of(&detail, &[]).is_complete());
}

#[test]
fn tables_show_the_tag_of_an_image_and_not_its_digest() {
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    let mut detail = detail(1);
    for (image, shown) in [
        (format!("nginx:1.27@{digest}"), "nginx:1.27"),
        (
            format!("registry.example:5000/web:2@{digest}"),
            "registry.example:5000/web:2",
        ),
        ("nginx:1.27".to_owned(), "nginx:1.27"),
        ("host".to_owned(), "host"),
    ] {
        Arc::make_mut(&mut detail.service.spec.task).container.image = image;
        let format = FormatArgs {
            format: Some("{{.Image}}".to_owned()),
            quiet: false,
        };
        let text = rows::services(vec![detail.clone()])
            .render(&format)
            .unwrap();
        assert_eq!(text.trim_end(), shown);
    }
}
