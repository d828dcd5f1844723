//! The first stack of most people: a web tier before a database with a volume. Both are scripts of
//! busybox; the web tier fails until its database answers, as the real one does.

use serde_json::json;

use super::Image;
use super::voting::stand_in;

/// The database: it greets whom its environment names, and counts the greetings on its volume.
const ACCOUNTS: &str = r#"#!/bin/sh
data=/var/lib/mysql
while read -r word user password; do
  case $word in
    hello)
      if [ "$user $password" = "$MYSQL_USER $MYSQL_PASSWORD" ]; then
        echo "$user" >> $data/visits
        echo "welcome to $MYSQL_DATABASE, visit $(grep -c . $data/visits)"
      else
        echo "access denied for $user"
      fi ;;
    *) echo "what is $word?" ;;
  esac
done
"#;

const PAGE: &str = r#"#!/bin/sh
host=${WORDPRESS_DB_HOST%:*}
port=${WORDPRESS_DB_HOST#*:}
said=$(echo "hello $WORDPRESS_DB_USER $WORDPRESS_DB_PASSWORD" | timeout 5 nc "$host" "$port")
case $said in
  welcome*) echo "Hello from $(hostname), $said" | answer '200 OK' ;;
  *) echo "no database: $said" | answer '500 No' ;;
esac
"#;

/// Port that the stack publishes.
pub const WORDPRESS_PORT: u16 = 8001;

/// Images of both: `mysql:5.7` and `wordpress:latest`.
///
/// # Errors
/// As of [`super::busybox`].
pub fn wordpress() -> anyhow::Result<Vec<Image>> {
    let mysql = stand_in("mysql:5.7", &[("bin/accounts", ACCOUNTS)])?;
    let mysql = mysql
        .set("Volumes", json!({ "/var/lib/mysql": {} }))
        .set("ExposedPorts", json!({ "3306/tcp": {} }))
        .runs(&["/bin/lines", "3306", "/bin/accounts"]);
    let wordpress = stand_in("wordpress:latest", &[("srv/pages/cgi-bin/index.cgi", PAGE)])?;
    let wordpress = wordpress
        .set("ExposedPorts", json!({ "80/tcp": {} }))
        .runs(&["/bin/pages", "pages"]);
    Ok(vec![mysql, wordpress])
}

/// The stack file, as courses have it, with images of this registry.
#[must_use]
pub fn wordpress_file(registry: &str) -> String {
    format!(
        r#"version: '3'

services:
   db:
     image: {registry}/mysql:5.7
     volumes:
       - db_data:/var/lib/mysql
     environment:
       MYSQL_ROOT_PASSWORD: somewordpress
       MYSQL_DATABASE: wordpress
       MYSQL_USER: wordpress
       MYSQL_PASSWORD: wordpress

   wordpress:
     image: {registry}/wordpress:latest
     ports:
       - "{WORDPRESS_PORT}:80"
     environment:
       WORDPRESS_DB_HOST: db:3306
       WORDPRESS_DB_USER: wordpress
       WORDPRESS_DB_PASSWORD: wordpress
volumes:
    db_data:
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_names_both_images() {
        let file = wordpress_file("10.77.0.254:5000");
        for image in ["mysql:5.7", "wordpress:latest"] {
            let line = format!("     image: 10.77.0.254:5000/{image}\n");
            assert!(file.contains(&line), "{file}");
        }
        assert!(file.contains("- \"8001:80\"\n"), "{file}");
    }
}
