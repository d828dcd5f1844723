//! How managers leave: carefully, one after the other, and carelessly, with the way out of it.

use anyhow::{Context, ensure};

use super::crowd::Crowd;
use super::members::{LIMIT, MANAGERS, NO_LEADER, WORKERS, lists};
use super::walk::Walk;

/// All of them, until no swarm is left.
pub(super) fn walk(walk: &mut Walk<'_, '_>, crowd: &Crowd) -> anyhow::Result<()> {
    let leader = walk.swarm.wait_leader(&MANAGERS)?;
    let mut others = MANAGERS.into_iter().filter(|node| *node != leader);
    let both = "two managers that do not lead";
    let (first, second) = (others.next().context(both)?, others.next().context(both)?);
    carefully(walk, &leader, first)?;
    crowd.notices_nothing(walk)?;
    carelessly(walk, &leader, second)?;
    crowd.notices_nothing(walk)?;
    goes_on_alone(walk, &leader)?;
    crowd.notices_nothing(walk)?;
    the_last_one(walk, &leader)?;
    crowd.notices_nothing(walk)
}

fn carefully(walk: &mut Walk<'_, '_>, leader: &str, first: &str) -> anyhow::Result<()> {
    walk.transcript.section("A manager leaves")?;
    walk.check("it is not let go without a word", |walk| {
        walk.refused(first, &["swarm", "leave"], "participating as a manager")
    })?;
    walk.check("nor removed while it is one", |walk| {
        let says = "It must be demoted to worker before removal";
        walk.refused(leader, &["node", "rm", first], says)
    })?;
    walk.check("it is demoted first, and leaves", |walk| {
        walk.weft(first, &["swarm", "leave", "--demote"])
    })?;
    walk.check("it is a worker that is gone, and can be removed", |walk| {
        lists(walk, leader, &[format!("{first} Down")])?;
        walk.weft(leader, &["node", "rm", first])
    })?;
    walk.check("a worker that is there is not", |walk| {
        let says = "is not down and can't be removed";
        walk.refused(leader, &["node", "rm", WORKERS[0]], says)
    })?;
    walk.weft(leader, &["node", "ls"])?;
    Ok(())
}

fn carelessly(walk: &mut Walk<'_, '_>, leader: &str, second: &str) -> anyhow::Result<()> {
    walk.transcript
        .section("One of two managers leaves, carelessly")?;
    walk.check("it is told what that costs", |walk| {
        let says = "Removing this node leaves 1 managers out of 2.";
        walk.refused(second, &["swarm", "leave"], says)
    })?;
    walk.weft(second, &["swarm", "leave", "--force"])?;
    walk.check("nothing can be changed any more", |walk| {
        walk.eventually(LIMIT, |walk| {
            let said = walk.quietly(leader, &["network", "create", "careless"]);
            let error = said.err().context("it was taken")?;
            ensure!(
                error.root_cause().to_string().contains(NO_LEADER),
                "{error:#}"
            );
            Ok(())
        })?;
        walk.refused(leader, &["service", "scale", "web=3"], NO_LEADER)
    })?;
    Ok(())
}

fn goes_on_alone(walk: &mut Walk<'_, '_>, leader: &str) -> anyhow::Result<()> {
    walk.transcript
        .section("The one that is left goes on alone")?;
    walk.weft(leader, &["swarm", "init", "--force-new-cluster"])?;
    walk.check("changes are taken again", |walk| {
        walk.eventually(LIMIT, |walk| {
            walk.quietly(leader, &["network", "create", "alone"])
        })
    })?;
    walk.check("all workers are with it", |walk| {
        let rows = WORKERS.map(|node| format!("{node} Ready"));
        lists(walk, leader, &rows)?;
        lists(walk, leader, &[format!("{leader} Ready Leader")])
    })?;
    walk.weft(leader, &["node", "ls"])?;
    walk.weft(leader, &["service", "ls"])?;
    Ok(())
}

fn the_last_one(walk: &mut Walk<'_, '_>, leader: &str) -> anyhow::Result<()> {
    walk.transcript.section("The last manager leaves")?;
    walk.check("it is told that the swarm ends with it", |walk| {
        let says = "Removing the last manager erases all current state of the swarm.";
        walk.refused(leader, &["swarm", "leave"], says)
    })?;
    walk.weft(leader, &["swarm", "leave", "--force"])?;
    walk.check("it is part of none", |walk| {
        walk.refused(leader, &["node", "ls"], "\"weft swarm init\"")
    })?;
    walk.transcript
        .say("What runs on the workers goes on, by their last orders.")?;
    Ok(())
}
