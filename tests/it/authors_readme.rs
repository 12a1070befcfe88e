//! "Write a plugin in 5 minutes": README.md is followed to the letter. Its commands are typed, its code is looked for or put in, and its
//! conversations are held, each where it stands. Only the port is another one, and the client is the tests' own.

use crate::support::author::{Desk, Language, Running};
use crate::support::client::Client;

const HEADING: &str = "## Write a plugin in 5 minutes";

/// A block of code, with its language.
struct Block {
    language: String,
    text: String,
}

/// The blocks below a heading of the third level in that section.
fn blocks(readme: &str, heading: &str) -> Vec<Block> {
    let section = readme.split_once(HEADING).expect("the section").1;
    let section = section.split("\n## ").next().expect("text");
    let part = section.split_once(&format!("\n### {heading}\n")).expect("the heading").1;
    let part = part.split("\n### ").next().expect("text");
    let mut blocks = Vec::new();
    let mut rest = part;
    while let Some((_, begin)) = rest.split_once("```") {
        let (language, body) = begin.split_once('\n').expect("a line");
        let (text, after) = body.split_once("```").expect("the end of a block");
        blocks.push(Block { language: language.to_owned(), text: text.to_owned() });
        rest = after;
    }
    blocks
}

/// Whoever does what README.md says.
struct Reader {
    desk: Desk,
    language: Language,
    source: &'static str,
    dev: Option<(Running, String)>,
    client: Option<Client>,
    /// Lines of conversations that were held.
    said: usize,
}

impl Reader {
    async fn follow(&mut self, block: &Block) {
        match block.language.as_str() {
            "sh" => {
                for line in block.text.lines() {
                    // What comes after it is for people.
                    self.type_in(line.split('#').next().unwrap_or_default().trim()).await;
                }
            }
            "text" => self.talk(&block.text).await,
            "diff" => self.edit(&block.text).await,
            "rust" | "js" => {
                let source = self.desk.read(self.source);
                assert!(source.contains(&block.text), "{} does not have this:\n{}", self.source, block.text);
            }
            other => panic!("what is to be done with {other:?}?"),
        }
    }

    async fn type_in(&mut self, line: &str) {
        if let Some(folder) = line.strip_prefix("cd ") {
            self.desk.enter(folder);
            if self.language == Language::Rust {
                self.desk.provide(Language::Rust);
            }
        } else if line == "hotbay plugin dev" {
            let mut command = self.desk.shell(&format!("exec {line}"));
            command.env("HOTBAY_LISTEN", "127.0.0.1:0");
            let mut dev = Running::start(command);
            let address = dev.address("socket   ws://").await;
            self.dev = Some((dev, address));
        } else if let Some(url) = line.strip_prefix("npx wscat -c ") {
            let (_, address) = self.dev.as_ref().expect("a broker");
            let url = url.trim_matches('"');
            assert!(url.contains("127.0.0.1:3000"), "{url} is not where the broker listens");
            self.client = Some(Client::connect(&url.replace("127.0.0.1:3000", address)).await);
        } else {
            let output = self.desk.shell(line).output().expect("an end");
            let words = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{line}: {words}\n{}", String::from_utf8_lossy(&output.stdout));
        }
    }

    async fn talk(&mut self, text: &str) {
        let client = self.client.as_mut().expect("a connection");
        for line in text.lines() {
            match line.split_at(2) {
                ("> ", message) => client.send_text(message).await,
                ("< ", message) => assert_eq!(client.text().await, message),
                _ => panic!("who says {line:?}?"),
            }
            self.said += 1;
        }
    }

    async fn edit(&mut self, diff: &str) {
        let side = |sign: char| {
            let lines = diff.lines().filter(|line| line.starts_with(sign) || line.starts_with(' '));
            lines.fold(String::new(), |text, line| text + &line[1..] + "\n")
        };
        self.desk.edit(self.source, &side('-'), &side('+'));
        let (dev, _) = self.dev.as_mut().expect("a broker");
        dev.until("vetted and swapped in").await;
    }
}

async fn follow_to_the_letter(heading: &str, language: Language, source: &'static str) {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("README.md");
    let desk = Desk::clear(&format!("readme-{}", language.flag()));
    let mut reader = Reader { desk, language, source, dev: None, client: None, said: 0 };

    for block in blocks(&readme, heading) {
        reader.follow(&block).await;
    }

    assert!(reader.said >= 4, "README.md only has {} lines of conversation", reader.said);
    let (dev, _) = reader.dev.expect("a broker");
    assert_eq!(dev.interrupt().await, Some(0));
}

#[tokio::test]
async fn a_plugin_in_rust_is_written_as_readme_says() {
    follow_to_the_letter("In Rust", Language::Rust, "src/lib.rs").await;
}

#[tokio::test]
async fn a_plugin_in_javascript_is_written_as_readme_says() {
    follow_to_the_letter("In JavaScript", Language::Js, "src/plugin.js").await;
}
