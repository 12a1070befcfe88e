//! What a tenant is told that its channels keep: right, whatever the store does meanwhile.

use std::time::Duration;

use hotbay::limits::MountLimits;
use hotbay::protocol::name::ChannelName;
use hotbay::registry::reset_channel;

use crate::inside::{Inside, ask};
use crate::support::client::{Client, DEADLINE};

/// How a commit goes that is under way while its channel is reset.
#[derive(Debug, Clone, Copy, PartialEq)]
enum UnderWay {
    /// Written afterwards, if it may be: it may not.
    Late,
    /// Written before, and answered afterwards.
    Answered,
    /// Written before, and never answered.
    Lost,
}

struct Accounts {
    inside: Inside,
    channel: ChannelName,
    ann: Client,
}

impl Accounts {
    async fn begin(commit_ms_max: u64) -> Self {
        let inside = Inside::with(MountLimits { commit_ms_max, ..MountLimits::default() }).await;
        let ann = inside.connect("ann", "a", None).await;
        let channel = ChannelName::new("default", "fixture:a").expect("a name");
        Self { inside, channel, ann }
    }

    /// Bytes of state on the account.
    fn counted(&self) -> u64 {
        self.inside.directory.quotas().of("default").usage().state_bytes
    }

    /// Bytes of state in the store, and after how many commits.
    async fn kept(&self) -> (u64, u64) {
        let row = self.inside.catalog().channel(&self.channel).await.expect("a row").expect("a channel");
        (row.state_bytes, row.seq)
    }

    async fn until_written(&self, commits: u64) {
        let wait = async {
            while self.kept().await.1 < commits {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.expect("written in time");
    }
}

/// Law: after a reset a channel is counted with nothing, whatever commit of it was under way and however that ends, and later with what it
/// keeps then; and no other channel's bytes are counted off for it.
#[tokio::test]
async fn a_channel_that_was_reset_is_counted_with_nothing() {
    for how in [UnderWay::Late, UnderWay::Answered, UnderWay::Lost] {
        let commit_ms_max = if how == UnderWay::Lost { 500 } else { 60_000 };
        let mut accounts = Accounts::begin(commit_ms_max).await;
        let mut other = accounts.inside.connect("other", "other", None).await;
        assert_eq!(ask(&mut other, "put stays 12345").await, "ok");
        assert_eq!(ask(&mut accounts.ann, "put key 1").await, "ok");
        let others = accounts.counted() - accounts.kept().await.0;

        if how == UnderWay::Late {
            accounts.inside.hold_commits();
        } else {
            accounts.inside.hold_answers();
        }
        accounts.ann.send_text("put another 1234567890").await;
        if how == UnderWay::Late {
            assert_eq!(ask(&mut other, "echo 1").await, "1");
        } else {
            accounts.until_written(2).await;
        }
        let (catalog, quotas) = (accounts.inside.catalog(), accounts.inside.directory.quotas());
        assert!(reset_channel(catalog, Some(quotas), &accounts.channel, None).await.expect("a store"));
        assert_eq!(accounts.counted(), others, "{how:?}");

        let let_on = |accounts: &Accounts| match how {
            UnderWay::Late => accounts.inside.let_commit(100),
            UnderWay::Answered | UnderWay::Lost => accounts.inside.let_answer(100),
        };
        if how != UnderWay::Lost {
            let_on(&accounts);
        }
        let told = accounts.ann.text().await;
        let_on(&accounts);
        assert_eq!(told == "ok", how == UnderWay::Answered, "{how:?}: {told}");
        assert_eq!(accounts.counted(), others, "{how:?}");
        // Who had the channel learns that it has it no more, and takes it over again.
        while ask(&mut accounts.ann, "put k after").await != "ok" {}
        assert_eq!(accounts.counted(), others + accounts.kept().await.0, "{how:?}");
        assert_eq!(accounts.kept().await.0, 6, "{how:?}");
        accounts.inside.drain().await;
    }
}
