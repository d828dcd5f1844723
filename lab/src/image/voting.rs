//! The voting app that people deploy as their first larger stack, in its public shape: six services on
//! two networks, and a vote that goes all the way from `vote` to `result`. Its programs are scripts of
//! busybox that speak over the ports of those that they stand for.

use std::path::Path;

use anyhow::Context;
use serde_json::json;

use super::{Image, Layer, base};

/// Serves the programs below `/srv/$1`. As process 1 it has to have a handler for what ends it.
const PAGES: &str = r#"#!/bin/sh
trap 'kill $child 2>/dev/null; exit 0' TERM
httpd -f -p "${PORT:-80}" -h "/srv/$1" &
child=$!
wait $child
"#;

/// Runs a program for each connection to a port; its input and output are the connection.
const LINES: &str = r#"#!/bin/sh
trap 'kill $child 2>/dev/null; exit 0' TERM
nc -ll -p "$1" -e "$2" &
child=$!
wait $child
"#;

/// Answers a request with a status and the text of standard input.
const ANSWER: &str = r#"#!/bin/sh
text=$(cat)
printf 'Status: %s\r\nContent-Type: text/plain\r\n' "$1"
printf 'Content-Length: %d\r\n\r\n%s\n' $((${#text} + 1)) "$text"
"#;

/// What the voting app uses of redis: a list. Each vote is a file, which a rename takes for one only.
const QUEUE: &str = r#"#!/bin/sh
mkdir -p /tmp/votes /tmp/taken
while read -r word key value; do
  value=${value%?}
  word=${word%$'\r'}
  case $word in
    RPUSH)
      file=$(mktemp /tmp/taken/new.XXXXXX)
      echo "$value" > "$file"
      mv "$file" "/tmp/votes/${file##*.}"
      printf ':1\r\n' ;;
    LPOP)
      found=
      for file in /tmp/votes/*; do
        if mv "$file" "/tmp/taken/$$" 2>/dev/null; then
          found=$(cat "/tmp/taken/$$")
          rm "/tmp/taken/$$"
          break
        fi
      done
      if [ -n "$found" ]; then
        printf '$%d\r\n%s\r\n' "${#found}" "$found"
      else
        printf '$-1\r\n'
      fi ;;
    PING) printf '+PONG\r\n' ;;
    QUIT) printf '+OK\r\n'; exit 0 ;;
    *) printf '-ERR unknown command\r\n' ;;
  esac
done
"#;

/// The database, on its volume: a line for each vote.
const COUNT: &str = r#"#!/bin/sh
votes=/var/lib/postgresql/data/votes
while read -r word value; do
  case $word in
    add) echo "$value" >> $votes; echo ok ;;
    counts)
      touch $votes
      echo "a: $(grep -c '^a$' $votes), b: $(grep -c '^b$' $votes)" ;;
    *) echo "what is $word?" ;;
  esac
done
"#;

/// Moves votes to the database. One that was taken is kept until the database has it.
const WORK: &str = r#"#!/bin/sh
trap 'exit 0' TERM
vote=
while :; do
  if [ -z "$vote" ]; then
    vote=$(printf 'LPOP votes\r\nQUIT\r\n' | timeout 5 nc redis 6379 | tr -d '\r' | sed -n '1{/^\$[1-9]/!q};2p')
  fi
  if [ -z "$vote" ]; then
    sleep 0.2
  elif [ "$(printf 'add %s\n' "$vote" | timeout 5 nc db 5432)" = ok ]; then
    echo "moved $vote"
    vote=
  else
    sleep 0.2
  fi
done
"#;

const VOTE: &str = r#"#!/bin/sh
case $QUERY_STRING in
  vote=a|vote=b)
    vote=${QUERY_STRING#vote=}
    said=$(printf 'RPUSH votes %s\r\nQUIT\r\n' "$vote" | timeout 5 nc redis 6379)
    case $said in
      :*) echo "Voted $vote on $(hostname)" | answer '200 OK' ;;
      *) echo "redis said $said" | answer '500 No' ;;
    esac ;;
  *) echo "${OPTION_A:-Cats} (a) or ${OPTION_B:-dogs} (b)? Asked by $(hostname)" | answer '200 OK' ;;
esac
"#;

const RESULT: &str = r#"#!/bin/sh
said=$(echo counts | timeout 5 nc db 5432)
case $said in
  a:*) echo "$said" | answer '200 OK' ;;
  *) echo "the database said $said" | answer '500 No' ;;
esac
"#;

/// Port that the stack publishes for votes.
pub const VOTE_PORT: u16 = 5000;
/// The same for their result.
pub const RESULT_PORT: u16 = 5001;
/// The same for the picture of the swarm.
pub const VISUALIZER_PORT: u16 = 8080;

/// Names of the six services, sorted.
pub const VOTING_SERVICES: [&str; 6] = ["db", "redis", "result", "visualizer", "vote", "worker"];

/// The scripts that all stand-ins have, on top of [`base`].
///
/// # Errors
/// As of [`super::busybox`].
pub(super) fn stand_in(name: &str, scripts: &[(&str, &str)]) -> anyhow::Result<Image> {
    let mut layer = Layer::new();
    for folder in ["srv", "srv/pages", "srv/pages/cgi-bin"] {
        layer.folder(folder, 0o755)?;
    }
    let common = [
        ("bin/pages", PAGES),
        ("bin/lines", LINES),
        ("bin/answer", ANSWER),
    ];
    for (path, script) in common.iter().chain(scripts) {
        layer.file(path, 0o755, script.as_bytes())?;
    }
    base(name)?.with(layer)
}

/// Images of the voting app: `vote:1`, `redis:1`, `worker:1`, `db:1`, `result:1`.
///
/// # Errors
/// As of [`super::busybox`].
pub fn voting() -> anyhow::Result<Vec<Image>> {
    let page = "srv/pages/cgi-bin/index.cgi";
    let pages = ["/bin/pages", "pages"];
    let exposes = |image: Image, port: &str| image.set("ExposedPorts", json!({ port: {} }));
    let vote = stand_in("vote:1", &[(page, VOTE)])?.runs(&pages);
    let redis = stand_in("redis:1", &[("bin/queue", QUEUE)])?;
    let redis = redis.runs(&["/bin/lines", "6379", "/bin/queue"]);
    let worker = stand_in("worker:1", &[("bin/work", WORK)])?.runs(&["/bin/work"]);
    let db = stand_in("db:1", &[("bin/count", COUNT)])?;
    let db = db.runs(&["/bin/lines", "5432", "/bin/count"]);
    let result = stand_in("result:1", &[(page, RESULT)])?.runs(&pages);
    Ok(vec![
        exposes(vote, "80/tcp"),
        exposes(redis, "6379/tcp"),
        worker,
        exposes(db, "5432/tcp"),
        exposes(result, "80/tcp"),
    ])
}

/// The stack file of the voting app, with images of this registry, such as `10.77.0.254:5000`.
///
/// The sixth service is `weft visualizer --relay`: `program`, which is weft, seen from a container that
/// has nothing but busybox. `shown` is a folder of the manager's node where another one, which may talk
/// to the manager, listens on `weft.sock`.
///
/// # Errors
/// A path is no UTF-8.
pub fn voting_file(registry: &str, program: &Path, shown: &Path) -> anyhow::Result<String> {
    let mut mounts = String::new();
    for library in ["/lib", "/lib64"] {
        // A link where /usr was merged.
        if let Ok(source) = std::fs::canonicalize(library) {
            mounts.push_str(&format!("      - {}:{library}:ro\n", text(&source)?));
        }
    }
    Ok(format!(
        r#"version: "3"
services:
  redis:
    image: {registry}/redis:1
    networks: [frontend]
    deploy:
      replicas: 1
      update_config: {{parallelism: 2, delay: 10s}}
      restart_policy: {{condition: on-failure}}
  db:
    image: {registry}/db:1
    environment:
      POSTGRES_USER: "postgres"
      POSTGRES_PASSWORD: "postgres"
    volumes:
      - db-data:/var/lib/postgresql/data
    networks: [backend]
    deploy:
      placement:
        constraints: [node.role == manager]
  vote:
    image: {registry}/vote:1
    ports:
      - {VOTE_PORT}:80
    networks: [frontend]
    depends_on: [redis]
    deploy:
      replicas: 2
      update_config: {{parallelism: 2}}
      restart_policy: {{condition: on-failure}}
  result:
    image: {registry}/result:1
    ports:
      - {RESULT_PORT}:80
    networks: [backend]
    depends_on: [db]
    deploy:
      replicas: 1
      update_config: {{parallelism: 2, delay: 10s}}
      restart_policy: {{condition: on-failure}}
  worker:
    image: {registry}/worker:1
    networks: [frontend, backend]
    depends_on: [db, redis]
    deploy:
      mode: replicated
      replicas: 1
      labels: [APP=VOTING]
      restart_policy: {{condition: on-failure, delay: 10s, max_attempts: 3, window: 120s}}
      placement:
        constraints: [node.role == manager]
  visualizer:
    image: {registry}/vote:1
    command: ["/bin/weft", "-H", "unix:///run/shown/weft.sock", "visualizer", "--relay", "--listen", "0.0.0.0:{VISUALIZER_PORT}"]
    ports:
      - {VISUALIZER_PORT}:{VISUALIZER_PORT}
    stop_grace_period: 1m30s
    volumes:
      - {program}:/bin/weft:ro
      - {shown}:/run/shown
{mounts}    deploy:
      placement:
        constraints: [node.role == manager]
networks:
  frontend:
  backend:
volumes:
  db-data:
"#,
        program = text(program)?,
        shown = text(shown)?,
    ))
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str()
        .with_context(|| format!("the path {} is no UTF-8", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_has_its_image_in_the_file() {
        let program = Path::new("/usr/bin/weft");
        let shown = Path::new("/run/weft-shown");
        let file = voting_file("10.77.0.254:5000", program, shown).unwrap();
        for service in VOTING_SERVICES {
            let begins = format!("\n  {service}:\n    image: 10.77.0.254:5000/");
            assert!(file.contains(&begins), "{service}: {file}");
        }
        assert_eq!(file.matches("\n    image: ").count(), VOTING_SERVICES.len());
        assert!(
            file.contains("      - /usr/bin/weft:/bin/weft:ro\n"),
            "{file}"
        );
        assert!(
            file.contains("      - /run/weft-shown:/run/shown\n"),
            "{file}"
        );
        assert!(file.contains("      - 5000:80\n"), "{file}");
        assert!(!file.contains("{{"), "{file}");
    }
}
