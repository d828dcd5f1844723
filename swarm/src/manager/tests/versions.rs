//! Nodes of another version.

use tonic::{Code, Status};

use super::*;
use crate::convert::{SCHEMA, encode};
use crate::proto::control_client::ControlClient;
use crate::proto::dispatcher_client::DispatcherClient;
use crate::proto::{AttachEndpointRequest, SessionRequest, TaskUpdate, UpdateTaskStatusRequest};
use crate::tls::{connect, member_config};

fn refused<T>(answer: Result<T, Status>, schema: u32) {
    let Err(status) = answer else {
        panic!("schema {schema} was taken");
    };
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    let text = status.message();
    let says = format!("the peer speaks schema {schema} of the node protocol");
    assert!(
        text.starts_with(&says) && text.contains("run the same version of weftd on all nodes"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_another_version_is_refused_and_changes_nothing() {
    let (manager, first) = cluster().await;
    let dir = tempfile::tempdir().unwrap();
    let token = manager.join_token(Role::Worker).unwrap();
    let params = join_params(dir.path(), "w1", &token.token, &token.manager_addr);
    let identity = join(params).await.unwrap();
    let config = member_config(&identity).unwrap();
    let to = manager.local_addr().to_string();
    let channel = connect(&to, config).await.unwrap();
    let before = manager.state();
    for schema in [SCHEMA - 1, SCHEMA + 1] {
        let session = SessionRequest {
            schema,
            node_json: encode(&description("w2")).unwrap(),
            life: "life".to_owned(),
        };
        let mut dispatcher = DispatcherClient::new(channel.clone());
        refused(dispatcher.session(session).await, schema);
        let report = UpdateTaskStatusRequest {
            schema,
            updates: vec![TaskUpdate {
                task: "t".to_owned(),
                status_json: encode(&TaskStatus::default()).unwrap(),
            }],
        };
        refused(dispatcher.update_task_status(report).await, schema);
        let attach = AttachEndpointRequest {
            schema,
            attach_json: encode(&Attach::default()).unwrap(),
        };
        let mut control = ControlClient::new(channel.clone());
        refused(control.attach_endpoint(attach).await, schema);
    }
    let after = manager.state();
    assert_eq!(
        after.nodes[identity.node_id()],
        before.nodes[identity.node_id()]
    );
    assert_eq!((after.tasks.len(), after.endpoints.len()), (0, 0));
    assert!(first.session.connected());
    manager.stop().await;
}
