//! What people are told while a registry takes its time to say which image a name stands for.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use tokio::time::timeout;
use weft_images::ImageName;

use crate::output::complain;

/// How long an answer is waited for without a word.
pub(super) const SILENCE: Duration = Duration::from_millis(500);

/// Waits for the answer about an image, and says so where it does not come soon.
pub(super) async fn told<T>(image: &ImageName, answer: impl Future<Output = T>) -> T {
    let mut answer = pin!(answer);
    if let Ok(answer) = timeout(SILENCE, answer.as_mut()).await {
        return answer;
    }
    tell([image]);
    answer.await
}

/// Says that these are asked for.
pub(super) fn tell<'a>(images: impl IntoIterator<Item = &'a ImageName>) {
    for line in lines(images) {
        complain(&line);
    }
}

/// A line for each registry.
fn lines<'a>(images: impl IntoIterator<Item = &'a ImageName>) -> Vec<String> {
    let mut by_host = BTreeMap::<&str, Vec<String>>::new();
    for image in images {
        let of_host = by_host.entry(image.registry_host()).or_default();
        of_host.push(image.familiar());
    }
    let lines = by_host.into_iter().map(|(host, images)| {
        let (word, verb) = match images.as_slice() {
            [_] => ("image", "is"),
            _ => ("images", "are"),
        };
        format!("asking {host} which {word} {} {verb}…", images.join(", "))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_asked_for_what_is_a_line_for_each_registry() {
        let images = |texts: &[&str]| -> Vec<ImageName> {
            let names = texts.iter().map(|text| text.parse::<ImageName>());
            names.map(|name| name.expect("a name")).collect()
        };
        assert_eq!(
            lines(&images(&["nginx"])),
            ["asking registry-1.docker.io which image nginx:latest is…"]
        );
        assert_eq!(
            lines(&images(&[
                "redis:7",
                "registry.example:5000/app:2",
                "nginx"
            ])),
            [
                "asking registry-1.docker.io which images redis:7, nginx:latest are…",
                "asking registry.example:5000 which image registry.example:5000/app:2 is…",
            ]
        );
        assert!(lines(&images(&[])).is_empty());
    }

    #[tokio::test]
    async fn an_answer_that_takes_its_time_comes_all_the_same() {
        let image: ImageName = "nginx".parse().expect("a name");
        for wait in [Duration::ZERO, SILENCE + Duration::from_millis(50)] {
            let answer = async {
                tokio::time::sleep(wait).await;
                7
            };
            assert_eq!(told(&image, answer).await, 7);
        }
    }
}
