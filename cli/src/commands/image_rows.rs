//! Images as rows of docker's table (docker/cli `cli/command/formatter/image.go`).

use std::collections::BTreeSet;

use anyhow::bail;
use jiff::Timestamp;
use serde_json::json;
use weft_model::api::ImageSummary;

use crate::args::ImageListArgs;
use crate::output::{Filters, Key, Listing, Match, ago, size};

/// In place of a name, a tag or a digest that there is none of.
const NONE: &str = "<none>";

/// Keys of `image ls --filter`.
const KEYS: [Key; 3] = [
    ("dangling", &[]),
    ("label", &[("Labels", Match::Label)]),
    ("reference", &[]),
];

/// Which images, and what of them.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    repository: Option<&'a str>,
    dangling: Option<bool>,
    references: Vec<&'a str>,
    filters: Filters<'a>,
    digests: bool,
    no_trunc: bool,
}

impl<'a> Wanted<'a> {
    /// As the command line says.
    ///
    /// # Errors
    /// A filter that there is none of.
    pub(super) fn of(args: &'a ImageListArgs) -> anyhow::Result<Self> {
        let filters = Filters::of(&args.filter, &KEYS)?;
        let mut dangling = None;
        for value in filters.values("dangling") {
            dangling = Some(match value {
                "true" | "1" => true,
                "false" | "0" => false,
                _ => bail!(
                    "invalid filter 'dangling={value}': write dangling=true or dangling=false"
                ),
            });
        }
        Ok(Self {
            repository: args.repository.as_deref(),
            dangling,
            references: filters.values("reference").collect(),
            filters,
            digests: args.digests,
            no_trunc: args.no_trunc,
        })
    }

    /// Whether an image is shown by this name; one without any has none.
    fn is_named(&self, repository: &str, tag: &str) -> bool {
        let whole = format!("{repository}:{tag}");
        let is = |wanted: &str| glob(wanted, repository) || glob(wanted, &whole);
        self.repository.is_none_or(|wanted| is(familiar(wanted)))
            && (self.references.is_empty() || self.references.iter().any(|wanted| is(wanted)))
    }
}

/// As names are shown, of what people may write out.
fn familiar(name: &str) -> &str {
    let short = name.strip_prefix("docker.io/").unwrap_or(name);
    short.strip_prefix("library/").unwrap_or(short)
}

/// path.Match of Go, but for its classes: `*` and `?` stand for anything but a slash.
fn glob(pattern: &str, text: &str) -> bool {
    let mut chars = pattern.chars();
    match chars.next() {
        None => text.is_empty(),
        Some('*') => {
            let rest = chars.as_str();
            let ends = text.char_indices().map(|(at, c)| (at, Some(c)));
            for (at, c) in ends.chain([(text.len(), None)]) {
                if glob(rest, text.get(at..).unwrap_or_default()) {
                    return true;
                }
                if c == Some('/') {
                    return false;
                }
            }
            false
        }
        Some(wanted) => {
            let mut found = text.chars();
            let is = found
                .next()
                .is_some_and(|c| c == wanted || (wanted == '?' && c != '/'));
            is && glob(chars.as_str(), found.as_str())
        }
    }
}

/// `image ls`
pub(super) fn images(images: &[ImageSummary], wanted: &Wanted<'_>) -> Listing {
    let table = if wanted.digests {
        "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
    } else {
        "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
    };
    let mut listing = Listing::new(
        &[
            ("ID", "IMAGE ID"),
            ("Repository", "REPOSITORY"),
            ("Tag", "TAG"),
            ("Digest", "DIGEST"),
            ("CreatedSince", "CREATED"),
            ("CreatedAt", "CREATED AT"),
            ("Size", "SIZE"),
            ("Containers", "CONTAINERS"),
        ],
        table,
        "ID",
    );
    let now = Timestamp::now();
    for image in images {
        let names = names(image, wanted.digests);
        let is_dangling = names.iter().all(|name| name.tag == NONE);
        if wanted.dangling.is_some_and(|asked| asked != is_dangling) {
            continue;
        }
        for name in names {
            if !wanted.is_named(&name.repository, &name.tag) {
                continue;
            }
            let created = Timestamp::from_second(image.created).unwrap_or(Timestamp::UNIX_EPOCH);
            let created_ms = u64::try_from(created.as_millisecond()).unwrap_or_default();
            listing.push(json!({
                "ID": id(&image.id, wanted.no_trunc),
                "Repository": name.repository,
                "Tag": name.tag,
                "Digest": name.digest,
                "CreatedSince": if image.created == 0 { "N/A".to_owned() } else { ago(created_ms, now) },
                "CreatedAt": created.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string(),
                "Size": size(image.size),
                "Containers": image.containers,
                "Labels": image.labels,
            }));
        }
    }
    listing.keep(&wanted.filters);
    listing
}

/// `0123456789ab`, or all of it.
fn id(id: &str, whole: bool) -> String {
    if whole {
        return id.to_owned();
    }
    let hex = id.strip_prefix("sha256:").unwrap_or(id);
    hex.get(..12).unwrap_or(hex).to_owned()
}

/// A name in the table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    repository: String,
    tag: String,
    digest: String,
}

/// A row for each name; one for an image that has none. Without digests, those of a repository that
/// has a tag are not seen.
fn names(image: &ImageSummary, digests: bool) -> Vec<Name> {
    let of = |repository: &str, tag: &str, digest: &str| Name {
        repository: repository.to_owned(),
        tag: tag.to_owned(),
        digest: digest.to_owned(),
    };
    let tagged: Vec<(&str, &str)> = image
        .repo_tags
        .iter()
        .filter_map(|name| name.rsplit_once(':'))
        .collect();
    let by_digest: Vec<(&str, &str)> = image
        .repo_digests
        .iter()
        .filter_map(|name| name.split_once('@'))
        .collect();
    let mut names = BTreeSet::new();
    for (repository, tag) in &tagged {
        let own = by_digest.iter().filter(|(of, _)| of == repository);
        let mut own: Vec<&str> = own.map(|(_, digest)| *digest).collect();
        if own.is_empty() || !digests {
            own = vec![own.first().copied().unwrap_or(NONE)];
        }
        names.extend(own.into_iter().map(|digest| of(repository, tag, digest)));
    }
    for (repository, digest) in &by_digest {
        let has_tag = tagged.iter().any(|(of, _)| of == repository);
        let is_shown = names.iter().any(|name| name.repository == **repository);
        if !has_tag && (digests || !is_shown) {
            names.insert(of(repository, NONE, digest));
        }
    }
    if names.is_empty() {
        names.insert(of(NONE, NONE, NONE));
    }
    names.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{FilterArgs, FormatArgs};

    fn image(digit: char, tags: &[&str], digests: &[&str]) -> ImageSummary {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        ImageSummary {
            id: format!("sha256:{}", digit.to_string().repeat(64)),
            repo_tags: texts(tags),
            repo_digests: texts(digests),
            created: 0,
            size: 187_400_000,
            labels: [("tier".to_owned(), "web".to_owned())].into(),
            containers: 0,
        }
    }

    fn args() -> ImageListArgs {
        ImageListArgs {
            repository: None,
            digests: false,
            no_trunc: false,
            filter: FilterArgs::default(),
            format: FormatArgs::default(),
        }
    }

    fn all() -> Vec<ImageSummary> {
        vec![
            image('a', &["nginx:1", "nginx:latest"], &["nginx@sha256:0a"]),
            image('b', &["registry.example:5000/app/web:v2"], &[]),
            image('c', &[], &["redis@sha256:0c"]),
            image('d', &[], &[]),
        ]
    }

    fn table(args: &ImageListArgs) -> Vec<String> {
        let wanted = Wanted::of(args).unwrap();
        let text = images(&all(), &wanted).render(&args.format).unwrap();
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        text.lines().map(words).collect()
    }

    #[test]
    fn the_table_is_dockers() {
        assert_eq!(
            table(&args()),
            [
                "REPOSITORY TAG IMAGE ID CREATED SIZE",
                "nginx 1 aaaaaaaaaaaa N/A 187MB",
                "nginx latest aaaaaaaaaaaa N/A 187MB",
                "registry.example:5000/app/web v2 bbbbbbbbbbbb N/A 187MB",
                "redis <none> cccccccccccc N/A 187MB",
                "<none> <none> dddddddddddd N/A 187MB",
            ]
        );
        let digests = ImageListArgs {
            digests: true,
            ..args()
        };
        let rows = table(&digests);
        assert_eq!(rows[0], "REPOSITORY TAG DIGEST IMAGE ID CREATED SIZE");
        assert_eq!(rows[2], "nginx latest sha256:0a aaaaaaaaaaaa N/A 187MB");
        assert_eq!(rows[3].split(' ').nth(2), Some("<none>"));
    }

    #[test]
    fn only_ids_and_whole_ones() {
        let mut quiet = args();
        quiet.format.quiet = true;
        assert_eq!(table(&quiet)[0], "aaaaaaaaaaaa");
        quiet.no_trunc = true;
        assert_eq!(table(&quiet)[0], format!("sha256:{}", "a".repeat(64)));
    }

    #[test]
    fn filters_choose() {
        let with = |key: &str, value: &str| {
            let mut args = args();
            args.filter.filters = vec![(key.to_owned(), value.to_owned())];
            let rows = table(&args);
            rows[1..]
                .iter()
                .filter_map(|row| row.split(' ').nth(2))
                .map(|id| id[..1].to_owned())
                .collect::<String>()
        };
        assert_eq!(with("dangling", "true"), "cd");
        assert_eq!(with("dangling", "false"), "aab");
        assert_eq!(with("reference", "nginx"), "aa");
        assert_eq!(with("reference", "nginx:l*"), "a");
        assert_eq!(with("reference", "*"), "aacd");
        assert_eq!(with("reference", "*/*/*"), "b");
        assert_eq!(with("label", "tier=web"), "aabcd");
        assert_eq!(with("label", "tier=db"), "");
        let mut named = args();
        named.repository = Some("docker.io/library/nginx:latest".to_owned());
        assert_eq!(table(&named).len(), 2);
        let mut wrong = args();
        for (key, value) in [("dangling", "maybe"), ("nosuch", "x")] {
            wrong.filter.filters = vec![(key.to_owned(), value.to_owned())];
            assert!(Wanted::of(&wrong).is_err());
        }
    }

    #[test]
    fn patterns_are_those_of_paths() {
        for (pattern, text, is) in [
            ("", "", true),
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "abc", true),
            ("*", "a/b", false),
            ("a*c", "abbc", true),
            ("*/b", "a/b", true),
            ("a?", "ab", true),
            ("a?", "a/", false),
            ("*:1*", "nginx:1.27", true),
        ] {
            assert_eq!(glob(pattern, text), is, "{pattern} {text}");
        }
    }
}
