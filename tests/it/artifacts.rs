//! Compiled code that is kept from one start to the next (FAULTS 60): what does not fit is refused, and made anew.

use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::support::broker::{Broker, Setup};

/// An artifact begins with its MAC.
const MAC_BYTES: usize = 32;
/// A machine that this is not, with a name as long.
const OTHER_MACHINE: &str = if cfg!(target_arch = "x86_64") { "mips64" } else { "riscv64" };

/// The one artifact there is.
fn artifact(folder: &Path) -> PathBuf {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let found: Vec<_> = entries.filter(|path| path.extension().is_some_and(|kind| kind == "artifact")).collect();
    let [artifact] = &found[..] else { panic!("{found:?}") };
    artifact.clone()
}

async fn serves(broker: &Broker) {
    let mut ann = broker.connect("/ws?channel=a", "ann").await;
    ann.send_text("echo hello").await;
    assert_eq!(ann.text().await, "hello");
}

/// The code with another machine's name in it, and a MAC that says that this broker made it.
fn for_another_machine(artifact: &Path) -> Vec<u8> {
    let name = artifact.file_name().and_then(|name| name.to_str()).expect("a name");
    let digest = hex::decode(name.split('-').next().expect("a digest")).expect("a digest");
    let key: [u8; 64] = std::fs::read(artifact.with_file_name("key")).expect("a key").try_into().expect("64 bytes");
    let mut code = std::fs::read(artifact).expect("code").split_off(MAC_BYTES);
    let (machine, other) = (std::env::consts::ARCH.as_bytes(), OTHER_MACHINE.as_bytes());
    let places: Vec<usize> = (0..code.len() - machine.len()).filter(|at| code[*at..].starts_with(machine)).collect();
    assert!(!places.is_empty(), "the code does not say what machine it is for");
    for at in places {
        code[at..at + machine.len()].copy_from_slice(other);
    }
    let mac = Hmac::<Sha256>::new((&key).into()).chain_update(&digest).chain_update(&code).finalize().into_bytes();
    [&mac[..], &code].concat()
}

/// Goal: after an update of the engine, on another machine, and after a disk that failed, a broker starts and serves: code that does not
/// fit is never run, and does not stay.
#[tokio::test(flavor = "multi_thread")]
async fn code_that_does_not_fit_is_made_anew() {
    let mut broker = Setup::fixture("").with_nothing_compiled().start();
    serves(&broker).await;
    assert_eq!(broker.terminate().await, Some(0));
    let kept = artifact(&broker.data().join("artifacts"));
    let good = std::fs::read(&kept).expect("code");
    let compiled = |broker: &Broker| broker.log().matches("\"message\":\"compiled\"").count();

    broker.start();
    serves(&broker).await;
    assert_eq!(broker.terminate().await, Some(0));
    let before = compiled(&broker);
    assert_eq!(std::fs::read(&kept).expect("code"), good, "code that fits is used again");

    // The name has what the engine is like.
    let (digest, _) = kept.file_name().and_then(|name| name.to_str()).expect("a name").split_once('-').expect("a dash");
    std::fs::rename(&kept, kept.with_file_name(format!("{digest}-0123456789abcdef.artifact"))).expect("a file");
    broker.start();
    serves(&broker).await;
    assert_eq!(artifact(&broker.data().join("artifacts")), kept, "what the other engine made is gone");
    assert_eq!(compiled(&broker), before + 1, "{}", broker.log());
    assert_eq!(broker.terminate().await, Some(0));

    let mut damaged = good.clone();
    damaged[good.len() / 2] ^= 1;
    for (number, (wrong, why)) in
        [(for_another_machine(&kept), OTHER_MACHINE), (damaged, "its MAC does not fit")].into_iter().enumerate()
    {
        std::fs::write(&kept, wrong).expect("a file");
        broker.start();
        serves(&broker).await;
        let log = broker.until_log(why).await;
        assert_eq!(log.matches("the compiled code that was kept is not used").count(), number + 1, "{log}");
        assert_eq!(compiled(&broker), before + 2 + number, "{log}");
        assert_eq!(std::fs::read(&kept).expect("code"), good);
        assert_eq!(broker.terminate().await, Some(0));
    }
}
