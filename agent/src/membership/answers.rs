//! What managers ask of this node, and who answers.

use std::sync::Arc;

use weft_model::talk::Question;
use weft_swarm::Answerer;

use super::guest;
use crate::observe::logs;
use crate::parts::handles::Handles;
use crate::volumes;

/// Answers for as long as the member is there.
pub(super) fn answerer(handles: &Arc<Handles>) -> Answerer {
    // The session is a part of them.
    let handles = Arc::downgrade(handles);
    Answerer::new(move |question, exchange| {
        let handles = handles.upgrade();
        async move {
            let Some(handles) = handles else { return };
            match question {
                Question::Logs { tasks, query } => {
                    logs::answer(handles, tasks, query, exchange).await;
                }
                Question::Exec { task, exec } => {
                    guest::answer(handles, task, exec, exchange).await;
                }
                Question::Volumes { asked } => {
                    volumes::reply(&handles.volumes, asked, exchange).await;
                }
            }
        }
    })
}
