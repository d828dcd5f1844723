//! `weft image pull` (docker/cli `cli/command/image/pull.go`, moby `pkg/jsonmessage`)

use anyhow::{Context as _, bail};
use serde::de::DeserializeOwned;
use weft_client::{Client, segment};
use weft_images::{DockerConfig, ImageName};
use weft_model::api::{ImageProgress, REGISTRY_AUTH};

use crate::args::ImagePullArgs;
use crate::output::{Printer, size};

/// Columns of a bar between its ends.
const WIDTH: u64 = 50;
/// Columns of terminals that have no room for bars.
const NARROW: usize = 90;

pub(super) async fn run(
    client: &Client,
    args: &ImagePullArgs,
    out: &mut Printer,
) -> anyhow::Result<()> {
    let name: ImageName = args
        .image
        .parse()
        .with_context(|| format!("{:?}", args.image))?;
    let kept = DockerConfig::load().context("cannot read what \"docker login\" has kept")?;
    let credentials = kept
        .credentials_for(&name)
        .with_context(|| format!("no credentials for the registry of {}", name.familiar()))?;
    let header = credentials.map(|credentials| credentials.to_header());
    let header = header.as_deref().map(|header| (REGISTRY_AUTH, header));
    let headers: Vec<(&str, &str)> = header.into_iter().collect();
    if !args.quiet
        && let Some(tag) = default_tag(&args.image)
    {
        out.line(&format!("Using default tag: {tag}"))?;
    }
    let path = format!("/v1/images/create?fromImage={}", segment(&name.to_string()));
    let mut answer = client.post_stream(&path, &headers).await?;
    let (mut lines, mut screen) = (Lines::default(), Screen::default());
    let mut ended = false;
    while let Some(piece) = answer.next().await? {
        for line in lines.add::<ImageProgress>(&piece)? {
            if !line.error.is_empty() {
                bail!("{}", line.error);
            }
            ended |= line.status.starts_with("Status: ");
            if !args.quiet {
                screen.show(&line, out)?;
            }
        }
    }
    if !ended {
        bail!("the node broke off: `weft image ls` shows whether the image is there");
    }
    out.line(&name.to_string())?;
    Ok(())
}

/// The tag that is meant where none is given.
fn default_tag(image: &str) -> Option<&'static str> {
    let last = image.rsplit('/').next().unwrap_or(image);
    (!last.contains([':', '@'])).then_some("latest")
}

/// Lines of JSON out of pieces that end anywhere.
#[derive(Debug, Default)]
pub(super) struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// The lines that are whole with this piece.
    ///
    /// # Errors
    /// One of them is none.
    pub(super) fn add<T: DeserializeOwned>(&mut self, piece: &[u8]) -> anyhow::Result<Vec<T>> {
        self.rest.extend_from_slice(piece);
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else {
            return Ok(Vec::new());
        };
        let rest = self.rest.split_off(end + 1);
        let whole = std::mem::replace(&mut self.rest, rest);
        let lines = whole.split(|byte| *byte == b'\n');
        let lines = lines.filter(|line| !line.is_empty());
        let lines = lines.map(serde_json::from_slice::<T>);
        let lines = lines.collect::<Result<Vec<T>, _>>();
        lines.context(
            "a line of the node is not understood: are weft and weftd of the same version?",
        )
    }
}

/// What was shown last. On a terminal a line about how far something is takes the place of the one
/// before; elsewhere such lines are left out.
#[derive(Debug, Default)]
struct Screen {
    /// What the last line is about, where the next one may take its place.
    about: Option<String>,
}

impl Screen {
    fn show(&mut self, line: &ImageProgress, out: &mut Printer) -> std::io::Result<()> {
        let text = text(line, out.width());
        let Some(text) = text else { return Ok(()) };
        let moves = line.progress_detail.is_some();
        if moves && self.about.as_ref() == Some(&line.id) {
            out.redraw(1)?;
        }
        self.about = moves.then(|| line.id.clone());
        out.text(&format!("{text}\n"))
    }
}

/// A line as docker writes it; none of how far something is where nobody would see it move.
fn text(line: &ImageProgress, width: Option<usize>) -> Option<String> {
    let mut text = line.status.clone();
    if !line.id.is_empty() {
        text = format!("{}: {text}", line.id);
    }
    let Some(detail) = line.progress_detail else {
        return Some(text);
    };
    let columns = width?;
    if detail.total == 0 {
        return Some(text);
    }
    let (current, total) = (detail.current.min(detail.total), detail.total);
    let amounts = format!("{}/{}", size(current), size(total));
    if columns < NARROW {
        return Some(format!("{text} {amounts}"));
    }
    let filled = u128::from(current) * u128::from(WIDTH) / u128::from(total);
    let filled = usize::try_from(filled).unwrap_or_default();
    let left = usize::try_from(WIDTH).unwrap_or_default() - filled;
    let bar = format!("[{}>{}]", "=".repeat(filled), " ".repeat(left));
    Some(format!("{text} {bar} {amounts}"))
}

#[cfg(test)]
mod tests {
    use weft_model::api::ProgressDetail;

    use super::*;

    fn moving(current: u64, total: u64) -> ImageProgress {
        ImageProgress {
            status: "Downloading".to_owned(),
            id: "latest".to_owned(),
            progress_detail: Some(ProgressDetail { current, total }),
            ..ImageProgress::default()
        }
    }

    #[test]
    fn lines_end_where_they_end() {
        let mut lines = Lines::default();
        let all = b"{\"status\":\"a\"}\n{\"status\":\"b\"}\n\n{\"status\":\"c\"}\n";
        let mut read = Vec::new();
        for piece in all.chunks(5) {
            read.extend(lines.add::<ImageProgress>(piece).unwrap());
        }
        let read: Vec<String> = read.into_iter().map(|line| line.status).collect();
        assert_eq!(read, ["a", "b", "c"]);
        assert!(lines.add::<ImageProgress>(b"nonsense\n").is_err());
    }

    #[test]
    fn progress_is_for_terminals_and_has_a_bar_where_there_is_room() {
        let begin = ImageProgress {
            status: "Pulling from library/nginx".to_owned(),
            id: "latest".to_owned(),
            ..ImageProgress::default()
        };
        let says = "latest: Pulling from library/nginx";
        assert_eq!(text(&begin, None).as_deref(), Some(says));
        assert_eq!(text(&moving(1, 2), None), None);
        let unknown = text(&moving(0, 0), Some(120));
        assert_eq!(unknown.as_deref(), Some("latest: Downloading"));
        let narrow = text(&moving(1_500_000, 3_000_000), Some(80));
        assert_eq!(narrow.as_deref(), Some("latest: Downloading 1.5MB/3MB"));
        let wide = text(&moving(1_500_000, 3_000_000), Some(120)).unwrap();
        let bar = format!("[{}>{}]", "=".repeat(25), " ".repeat(25));
        assert_eq!(wide, format!("latest: Downloading {bar} 1.5MB/3MB"));
        let over = text(&moving(u64::MAX, 1), Some(120)).unwrap();
        assert!(over.contains(&format!("[{}>]", "=".repeat(50))), "{over}");
    }

    #[test]
    fn the_tag_that_is_meant_is_told() {
        assert_eq!(default_tag("nginx"), Some("latest"));
        assert_eq!(default_tag("registry.example:5000/nginx"), Some("latest"));
        assert_eq!(default_tag("nginx:1"), None);
        assert_eq!(default_tag("nginx@sha256:00"), None);
    }
}
