//! The client against fake nodes: pipelines, sessions, and the rule by which it
//! goes on to the next address.

#![expect(clippy::unwrap_used, reason = "a failure here is a failed test")]

#[expect(dead_code, reason = "the tests of cachecli use the rest")]
mod fake;

use std::time::{Duration, Instant};

use ::bytes::Bytes;
use fake::{Fake, Mood, cluster};
use raftcache::client::{Client, Error, SetOutcome};
use raftcache::request::*;

fn key(name: &str) -> Key {
    Key::new(name.to_owned())
}

fn client(fakes: &[Fake]) -> Client {
    let client = Client::new(fakes.iter().map(|fake| &fake.address));
    client.with_timeout(Duration::from_millis(500))
}

fn executed(fakes: &[Fake]) -> u64 {
    fakes[0].state.lock().unwrap().executed
}

/// An address at which nobody listens.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[tokio::test]
async fn every_helper_asks_what_it_says() {
    let fakes = cluster(1);
    let mut client = Client::connect([&fakes[0].address]).await.unwrap();
    client.ping().await.unwrap();
    assert_eq!(client.get(key("a")).await.unwrap(), None);
    let version = client.set(key("a"), "1".into()).await.unwrap();
    let item = Item { value: "1".into(), version };
    assert_eq!(client.get(key("a")).await.unwrap(), Some(item.clone()));
    assert_eq!(client.get_with(key("a"), Consistency::Stale).await.unwrap(), Some(item.clone()));
    let swapped =
        client.set_with(key("a"), "2".into(), Expiry::Never, Condition::IfVersion(version + 9));
    assert_eq!(swapped.await.unwrap(), SetOutcome::NotStored { version });
    assert_eq!(client.increment(key("a"), 4).await.unwrap(), 5);
    client.set(key("text"), "x".into()).await.unwrap();
    let failed = client.increment(key("text"), 1).await;
    assert_eq!(failed, Err(Error::Failed(Failure::NotAnInteger)));
    assert!(client.exists(key("a")).await.unwrap());
    assert_eq!(client.ttl(key("a")).await.unwrap(), Ttl::Never);
    assert!(client.expire(key("a"), Expiry::AfterMs(700)).await.unwrap());
    assert_eq!(client.ttl(key("a")).await.unwrap(), Ttl::Ms(700));
    assert!(client.persist(key("a")).await.unwrap());
    assert!(client.delete(key("a")).await.unwrap());
    assert!(!client.delete(key("a")).await.unwrap());
    client.set_many(vec![(key("b"), "1".into()), (key("c"), "2".into())]).await.unwrap();
    let many = client.get_many(vec![key("b"), key("no")], Consistency::Linearizable);
    let values: Vec<_> = many.await.unwrap().into_iter().map(|i| i.map(|i| i.value)).collect();
    assert_eq!(values, [Some(Bytes::from("1")), None]);
    assert_eq!(client.count(0).await.unwrap(), 3);
    client.clear(None).await.unwrap();
    assert_eq!(client.count(0).await.unwrap(), 0);
    assert_eq!(client.members().await.unwrap()[0].client_address, fakes[0].address);
    assert_eq!(client.status().await.unwrap().role, RoleName::Leader);
    client.join("n9".into(), ":1".into()).await.unwrap();
    client.transfer(None).await.unwrap();
    let refused = client.leave("nobody".into()).await;
    assert!(matches!(refused, Err(Error::Refused(ErrorKind::Refused, _))), "{refused:?}");
}

#[tokio::test]
async fn a_guard_that_fails_is_not_an_error() {
    let mut client = client(&cluster(1));
    let batch = Batch {
        guards: vec![Guard { key: key("a"), version: 7 }],
        commands: vec![Command::Delete(key("a"))],
    };
    assert_eq!(client.run_batch(batch, Consistency::Linearizable).await, Ok(None));
}

/// More than the sockets between them hold, both ways: who wrote it all before
/// reading would wait for ever.
#[tokio::test]
async fn a_long_pipeline_is_answered_in_order() {
    let mut client = client(&cluster(1));
    let value = Bytes::from(vec![b'v'; 32 << 10]);
    client.set(key("big"), value.clone()).await.unwrap();
    let mut requests = Vec::new();
    for number in 0..1000 {
        requests.push(Request::run(Command::Increment { key: key("n"), by: 1 }));
        let set = Command::Set {
            key: key(&number.to_string()),
            value: value.clone(),
            expiry: Expiry::Never,
            condition: Condition::Always,
        };
        requests.push(Request::run(set));
        requests.push(Request::run(Command::Get(key("big"))));
    }
    let results = client.call_many(requests).await;
    for (number, three) in results.chunks(3).enumerate() {
        let [count, _, item] = three else { panic!("{} results", results.len()) };
        let expected = Answer::Integer(number as i64 + 1);
        assert_eq!(count, &Ok(Reply::Answers(vec![expected])));
        assert!(matches!(item, Ok(Reply::Answers(a)) if matches!(&a[..],
            [Answer::Item(Some(item))] if item.value == value)));
    }
}

#[tokio::test]
async fn an_address_without_a_node_is_passed_over() {
    let fakes = cluster(1);
    let mut client = Client::new([nobody(), fakes[0].address.clone()]);
    client.set(key("a"), "1".into()).await.unwrap();
    assert_eq!(client.address(), fakes[0].address);
    let mut alone = Client::new([nobody()]);
    assert!(matches!(alone.set(key("a"), "1".into()).await, Err(Error::Unreachable(_))));
    assert!(matches!(Client::connect([nobody()]).await, Err(Error::Unreachable(_))));
}

/// Sent, executed, never answered: without a session nobody may try again.
#[tokio::test]
async fn a_plain_write_is_not_sent_twice() {
    let fakes = cluster(2);
    fakes[0].set_mood(Mood::SwallowReplies);
    let mut client = client(&fakes);
    let result = client.increment(key("n"), 1).await;
    assert!(matches!(result, Err(Error::Unknown(_))), "{result:?}");
    assert_eq!(executed(&fakes), 1);
}

#[tokio::test]
async fn a_read_goes_on_to_the_next_address() {
    for mood in [Mood::SwallowReplies, Mood::Hang, Mood::Refuse(ErrorKind::NoLeader)] {
        let fakes = cluster(2);
        fakes[0].set_mood(mood);
        let mut client = client(&fakes);
        assert_eq!(client.get(key("a")).await, Ok(None), "{mood:?}");
        assert_eq!(client.address(), fakes[1].address);
    }
}

/// The second node knows the write by its stamp and gives the first reply again.
#[tokio::test]
async fn a_stamped_write_goes_on_and_is_executed_once() {
    let fakes = cluster(2);
    let mut client = client(&fakes).with_session();
    assert_eq!(client.increment(key("n"), 1).await, Ok(1));
    fakes[0].set_mood(Mood::SwallowReplies);
    assert_eq!(client.increment(key("n"), 1).await, Ok(2));
    assert_eq!(client.address(), fakes[1].address);
    assert_eq!(executed(&fakes), 2);
    assert_eq!(client.increment(key("n"), 1).await, Ok(3));
}

/// "No leader" of the second node does not undo what the first may have done.
#[tokio::test]
async fn an_uncertain_write_stays_uncertain() {
    let fakes = cluster(2);
    let mut client = client(&fakes).with_session();
    client.increment(key("n"), 1).await.unwrap();
    fakes[0].set_mood(Mood::SwallowReplies);
    fakes[1].set_mood(Mood::Refuse(ErrorKind::NoLeader));
    let result = client.increment(key("n"), 1).await;
    assert!(matches!(result, Err(Error::Unknown(_))), "{result:?}");
    fakes[0].set_mood(Mood::Refuse(ErrorKind::NoLeader));
    let result = client.increment(key("n"), 1).await;
    assert!(matches!(result, Err(Error::Refused(ErrorKind::NoLeader, _))), "{result:?}");
}

/// A write that was refused for its session was not executed, so it may be
/// executed in another one.
#[tokio::test]
async fn an_expired_session_is_opened_anew() {
    let fakes = cluster(1);
    let mut client = client(&fakes).with_session();
    assert_eq!(client.increment(key("n"), 1).await, Ok(1));
    fakes[0].state.lock().unwrap().expired = 1;
    assert_eq!(client.increment(key("n"), 1).await, Ok(2));
    assert_eq!(executed(&fakes), 2);
}

/// What was executed and whose reply is gone is executed in no other session.
#[tokio::test]
async fn a_write_whose_reply_is_gone_is_not_executed_again() {
    let fakes = cluster(2);
    let mut client = client(&fakes).with_session();
    assert_eq!(client.increment(key("n"), 1).await, Ok(1));
    fakes[0].state.lock().unwrap().forgets = true;
    fakes[0].set_mood(Mood::SwallowOneReply);
    let result = client.increment(key("n"), 1).await;
    assert!(matches!(result, Err(Error::Unknown(_))), "{result:?}");
    assert_eq!(executed(&fakes), 2);
    assert_eq!(client.increment(key("n"), 1).await, Ok(3));
}

/// A stamp that the caller made is the caller's to renew.
#[tokio::test]
async fn a_foreign_stamp_is_left_alone() {
    let fakes = cluster(1);
    fakes[0].state.lock().unwrap().expired = 5;
    let mut client = client(&fakes).with_session();
    let request = Request::Run {
        batch: Batch::of(Command::Delete(key("a"))),
        consistency: Consistency::Linearizable,
        session: Some(SessionStamp { session: 5, sequence: 1 }),
    };
    let result = client.call(request).await;
    assert!(matches!(result, Err(Error::Refused(ErrorKind::SessionExpired, _))), "{result:?}");
    assert_eq!(executed(&fakes), 0);
}

#[tokio::test]
async fn kinds_of_failure_are_kept_apart() {
    let fakes = cluster(1);
    let mut client = client(&fakes);
    fakes[0].set_mood(Mood::Refuse(ErrorKind::OutOfMemory));
    let result = client.set(key("a"), "1".into()).await;
    let why = "n1 says OutOfMemory".to_owned();
    assert_eq!(result, Err(Error::Refused(ErrorKind::OutOfMemory, why)));
    fakes[0].set_mood(Mood::Refuse(ErrorKind::Unknown));
    let result = client.set(key("a"), "1".into()).await;
    assert!(matches!(result, Err(Error::Unknown(_))), "{result:?}");
    fakes[0].set_mood(Mood::Serve);
    let too_long = Bytes::from(vec![0; (64 << 10) + 1]);
    let result = client.get(Key::new(too_long)).await;
    assert!(matches!(result, Err(Error::Refused(ErrorKind::Invalid, _))), "{result:?}");
    assert_eq!(client.get(key("a")).await, Ok(None), "the connection is still good");
}

#[tokio::test]
async fn a_node_that_hangs_is_not_waited_for() {
    let fakes = cluster(1);
    fakes[0].set_mood(Mood::Hang);
    let mut client = client(&fakes).with_timeout(Duration::from_millis(100));
    let start = Instant::now();
    let read = client.get(key("a")).await;
    assert!(matches!(read, Err(Error::Unreachable(_))), "{read:?}");
    let write = client.set(key("a"), "1".into()).await;
    assert!(matches!(write, Err(Error::Unknown(_))), "{write:?}");
    assert!(start.elapsed() < Duration::from_secs(2));
}

/// What a dropped call left unread must not be taken for the next reply.
#[tokio::test]
async fn a_dropped_call_takes_its_reply_along() {
    let fakes = cluster(1);
    let mut client = client(&fakes);
    client.set(key("a"), "1".into()).await.unwrap();
    fakes[0].set_mood(Mood::Hang);
    let dropped = tokio::time::timeout(Duration::from_millis(50), client.exists(key("a")));
    assert!(dropped.await.is_err());
    fakes[0].set_mood(Mood::Serve);
    assert_eq!(client.get(key("a")).await.unwrap().unwrap().value, "1");
}

#[tokio::test]
async fn a_pipeline_can_be_kept_full() {
    let fakes = cluster(1);
    let mut client = client(&fakes);
    let add = Request::run(Command::Increment { key: key("n"), by: 1 });
    for _ in 0..4 {
        client.send(&add).await.unwrap();
    }
    for expected in 1..=100 {
        let reply = client.receive().await.unwrap();
        assert_eq!(reply, Reply::Answers(vec![Answer::Integer(expected)]));
        client.send(&add).await.unwrap();
    }
    // A call in between is not confused by the four that are still awaited.
    assert_eq!(client.count(0).await, Ok(1));
}

/// A node that restarts closes what is at rest. That must not cost the next
/// write its certainty.
#[tokio::test]
async fn a_connection_closed_at_rest_is_replaced() {
    let fakes = cluster(1);
    let mut client = Client::connect([&fakes[0].address]).await.unwrap();
    let hang_up = || {
        std::thread::sleep(Duration::from_millis(50));
        fakes[0].hang_up();
        std::thread::sleep(Duration::from_millis(150));
    };
    hang_up();
    assert_eq!(client.increment(key("n"), 1).await, Ok(1));
    hang_up();
    assert_eq!(client.increment(key("n"), 1).await, Ok(2));
}

/// The only node there is may be there again.
#[tokio::test]
async fn the_only_address_is_tried_once_more() {
    let fakes = cluster(1);
    let mut client = client(&fakes).with_session();
    assert_eq!(client.increment(key("n"), 1).await, Ok(1));
    fakes[0].set_mood(Mood::SwallowOneReply);
    assert_eq!(client.increment(key("n"), 1).await, Ok(2));
    assert_eq!(executed(&fakes), 2);
    fakes[0].set_mood(Mood::SwallowOneReply);
    assert_eq!(client.count(0).await, Ok(1));
}

fn set(value: &'static str) -> Request {
    let (key, value) = (key("a"), value.into());
    let (expiry, condition) = (Expiry::Never, Condition::Always);
    Request::run(Command::Set { key, value, expiry, condition })
}

fn get() -> Request {
    Request::run(Command::Get(key("a")))
}

fn value_of(result: &Result<Reply, Error>) -> &[u8] {
    match result {
        Ok(Reply::Answers(answers)) => match &answers[..] {
            [Answer::Item(Some(item))] => &item.value,
            answers => panic!("{answers:?}"),
        },
        result => panic!("{result:?}"),
    }
}

/// [The first of two writes is refused by the first node and executed by the
/// second, after the first node has executed the other.]
#[tokio::test]
async fn a_write_that_is_sent_again_keeps_its_place() {
    let fakes = cluster(2);
    let mut client = client(&fakes).with_session();
    client.set(key("a"), "0".into()).await.unwrap();
    fakes[0].set_mood(Mood::RefuseOne(ErrorKind::NoLeader));
    let results = client.call_many(vec![set("1"), set("2"), get()]).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(value_of(&results[2]), b"2");
    // Nor is it sent behind a read.
    fakes[1].set_mood(Mood::RefuseOne(ErrorKind::NoLeader));
    let results = client.call_many(vec![get(), set("3"), get()]).await;
    assert_eq!([value_of(&results[0]), value_of(&results[2])], [b"2", b"3"]);
}

/// A session that has expired is opened anew before anything else is sent.
#[tokio::test]
async fn what_follows_a_write_waits_for_its_new_session() {
    let fakes = cluster(1);
    let mut client = client(&fakes).with_session();
    client.set(key("a"), "0".into()).await.unwrap();
    fakes[0].state.lock().unwrap().expired = 1;
    let results = client.call_many(vec![set("1"), get(), set("2"), get()]).await;
    assert_eq!([value_of(&results[1]), value_of(&results[3])], [b"1", b"2"]);
}

/// It may take effect yet.
#[tokio::test]
async fn nothing_is_sent_behind_a_write_of_unknown_outcome() {
    let fakes = cluster(1);
    let mut client = client(&fakes).with_session();
    client.set(key("a"), "0".into()).await.unwrap();
    for (kind, is_unknown) in [(ErrorKind::Unknown, true), (ErrorKind::NoLeader, false)] {
        fakes[0].set_mood(Mood::Refuse(kind));
        let results = client.call_many(vec![set("1"), set("2"), get()]).await;
        let [first, second, third] = &results[..] else { panic!("{results:?}") };
        assert_eq!(matches!(first, Err(Error::Unknown(_))), is_unknown, "{first:?}");
        for unsent in [second, third] {
            assert!(matches!(unsent, Err(Error::Unreachable(why)) if why.contains("not sent")));
        }
    }
    fakes[0].set_mood(Mood::Serve);
    // A refusal that another node would repeat is an answer like any other.
    fakes[0].set_mood(Mood::RefuseOne(ErrorKind::OutOfMemory));
    let results = client.call_many(vec![set("1"), set("2"), get()]).await;
    assert!(matches!(results[0], Err(Error::Refused(ErrorKind::OutOfMemory, _))));
    assert_eq!(value_of(&results[2]), b"2");
}

/// Without a session too: what would come too late is not tried again.
#[tokio::test]
async fn a_read_is_not_tried_again_behind_a_later_write() {
    let fakes = cluster(2);
    let mut client = client(&fakes);
    client.set(key("a"), "0".into()).await.unwrap();
    fakes[0].set_mood(Mood::RefuseOne(ErrorKind::NoLeader));
    let results = client.call_many(vec![get(), set("1"), get()]).await;
    assert!(matches!(results[0], Err(Error::Refused(ErrorKind::NoLeader, _))), "{results:?}");
    assert_eq!(value_of(&results[2]), b"1");
    fakes[0].set_mood(Mood::RefuseOne(ErrorKind::NoLeader));
    let results = client.call_many(vec![get(), get()]).await;
    assert_eq!([value_of(&results[0]), value_of(&results[1])], [b"1", b"1"]);
}
