//! Stack files: Compose files of version 3, as `docker stack deploy` reads them.
//!
//! ```text
//! text ─► tree with places ─► variables ─► table of keys ─► long forms ─► several files ─► names
//!         (yaml)              (interpolation)  (check)      (read)        (merge)          (whole)
//!
//! stack ─► what the swarm is asked for
//!          (deployment)
//! ```
//!
//! Nothing here touches a file or the environment: [`load`] is given texts, and functions for variables and
//! env files. It tells all that is wrong at once, each with its place and what to write instead; what
//! docker drops without a word is used here, or refused.

#![forbid(unsafe_code)]

mod amount;
mod check;
mod deployment;
mod interpolation;
mod merge;
pub mod model;
mod near;
mod problem;
mod read;
mod render;
mod same;
mod schema;
mod surroundings;
mod target;
mod tree;
mod whole;
mod yaml;

pub use amount::{Nanoseconds, parse_size};
pub use deployment::{
    Condition, Deployment, Origin, StackNetwork, StackPayload, StackPort, StackService, deployment,
};
pub use problem::{Position, Problem, Problems};
pub use render::render;
pub use same::same;
pub use surroundings::{Interpolation, Source, Surroundings};

use std::sync::Arc;

use model::Stack;
use problem::Findings;

/// Most files of a stack.
const MAX_FILES: usize = 64;

/// A stack, and what people are to be told of its files though they are fine.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The stack.
    pub stack: Stack,
    /// Lines, docker's first.
    pub warnings: Vec<String>,
}

/// Reads the files of a stack, later ones over earlier ones.
///
/// # Errors
/// All that is wrong in all files.
pub fn load(sources: &[Source<'_>], surroundings: &Surroundings<'_>) -> Result<Loaded, Problems> {
    let mut findings = Findings::default();
    let mut whole: Option<Stack> = None;
    if sources.is_empty() || sources.len() > MAX_FILES {
        let what = format!(
            "a stack has from 1 to {MAX_FILES} files, not {}",
            sources.len()
        );
        findings.error(&Position::default(), "", what, "give them with -c");
    }
    for source in sources.iter().take(MAX_FILES) {
        let Some(stack) = load_one(source, surroundings, &mut findings) else {
            continue;
        };
        match &mut whole {
            Some(whole) => merge::merge(whole, stack, &mut findings),
            None => whole = Some(stack),
        }
    }
    if let Some(stack) = &whole {
        whole::check(stack, &mut findings);
    }
    let order: Vec<&str> = sources.iter().map(|source| source.name).collect();
    findings.errors.sort_by_cached_key(|error| {
        let file = order.iter().position(|name| **name == *error.at.file);
        (file, error.clone())
    });
    findings.errors.dedup();
    match whole {
        Some(stack) if findings.errors.is_empty() => Ok(Loaded {
            stack,
            warnings: findings.told(),
        }),
        _ => Err(Problems(findings.errors)),
    }
}

/// None where a file is no YAML.
fn load_one(
    source: &Source<'_>,
    surroundings: &Surroundings<'_>,
    findings: &mut Findings,
) -> Option<Stack> {
    let name: Arc<str> = Arc::from(source.name);
    let mut tree = yaml::parse(&name, source.text, findings)?;
    if surroundings.interpolation == Interpolation::Done {
        interpolation::interpolate(&mut tree, surroundings.variable, findings);
    }
    check::check(&tree, schema::FILE, "", findings);
    Some(read::read(&tree, surroundings, findings))
}
