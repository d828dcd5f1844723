//! What a manager tells of changes, and changes that come too late.

use weft_model::api::{Event, EventAction, EventKind, NodeUpdate};

use super::*;

async fn next(reader: &mut EventReader, kind: EventKind, action: EventAction) -> Arc<Event> {
    let found = async {
        loop {
            let batch = reader.next().await.expect("the manager runs");
            let mut events = batch.events.into_iter();
            if let Some(found) = events.find(|e| (e.kind, e.action) == (kind, action)) {
                return found;
            }
        }
    };
    timeout(LIMIT, found).await.expect("never told")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_told_and_remembered_until_the_manager_stops() {
    let (manager, _node) = cluster().await;
    let mut reader = manager.events(None);
    let network = NetworkSpec {
        name: "back".into(),
        ..NetworkSpec::default()
    };
    let network = manager.create_network(network).await.unwrap();
    let told = next(&mut reader, EventKind::Network, EventAction::Create).await;
    assert_eq!(told.actor.id, network.id.as_str());
    assert_eq!(told.actor.attributes["name"], "back");
    let mut late = manager.events(Some(0));
    let again = next(&mut late, EventKind::Network, EventAction::Create).await;
    assert_eq!(again, told);

    let update = NodeUpdate {
        label_add: [("disk".to_owned(), "ssd".to_owned())].into(),
        ..NodeUpdate::default()
    };
    let wrong = manager.update_node("m1", Some(999_999), &update).await;
    let wrong = wrong.unwrap_err();
    assert_eq!(wrong.kind, ErrorKind::Conflict);
    assert!(
        wrong.message.starts_with("update out of sequence: "),
        "{wrong}"
    );
    let updated = manager.update_node("m1", None, &update).await.unwrap();
    assert_eq!(updated.node.spec.labels["disk"], "ssd");
    let scaled = manager.scale_service("nosuch", Some(1), 2).await;
    assert_eq!(scaled.unwrap_err().message, "no such service: nosuch");

    manager.stop().await;
    let ended = async { while reader.next().await.is_some() {} };
    timeout(LIMIT, ended).await.expect("the stream goes on");
}
