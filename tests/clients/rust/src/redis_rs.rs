//! redis-rs, with both versions of the protocol: its connections that block, and those
//! that many share and that mend themselves.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::try_join_all;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{
    AsyncTypedCommands, Client, Connection, CopyOptions, ErrorKind, ExistenceCheck, Expiry,
    IntegerReplyOrNoOp, RedisError, RedisResult, ServerErrorKind, SetExpiry, SetOptions,
    TypedCommands, Value, ValueType, cmd, pipe,
};

use crate::{Outcome, Store, patiently};

/// Ours and the one beside it, both of which are emptied.
const DATABASE: u16 = 2;
const OTHER_DATABASE: u16 = 3;

fn client(host: &str, port: u16, protocol: &str) -> Outcome<Client> {
    Ok(Client::open(format!("redis://{host}:{port}/{DATABASE}?protocol={protocol}"))?)
}

pub async fn check(host: &str, port: u16) -> Outcome {
    for protocol in ["resp2", "resp3"] {
        let client = client(host, port, protocol)?;
        let mut connection = client.get_connection()?;
        connection.flushdb()?;
        names(&mut connection)?;
        strings(&mut connection)?;
        numbers(&mut connection)?;
        keys(&mut connection)?;
        deadlines(&mut connection)?;
        databases(&mut connection)?;
        pipelines(&mut connection)?;
        transactions(&mut connection, &mut client.get_connection()?)?;
        scans(&mut connection)?;
        let mut manager = managed(&client).await?;
        shared(&manager).await?;
        mends_itself(&mut manager).await?;
        connection.flushdb()?;
    }
    Ok(())
}

/// It is an error that the server said, and begins with ERR.
fn refused<T: Debug>(outcome: RedisResult<T>) -> RedisError {
    let error = outcome.expect_err("it is to be refused");
    assert_eq!(error.kind(), ErrorKind::Server(ServerErrorKind::ResponseError), "{error}");
    assert_eq!(error.code(), Some("ERR"), "{error}");
    error
}

fn names(connection: &mut Connection) -> Outcome {
    assert_eq!(connection.ping()?, "PONG");
    cmd("CLIENT").arg("SETNAME").arg("a-client").exec(connection)?;
    assert_eq!(connection.client_getname()?.as_deref(), Some("a-client"));
    assert!(connection.client_id()? > 0);
    let error = refused(cmd("NONSENSE").query::<Value>(connection));
    assert!(error.to_string().contains("unknown command"), "{error}");
    Ok(())
}

fn strings(connection: &mut Connection) -> Outcome {
    connection.set("text", "värde")?;
    assert_eq!(connection.get("text")?.as_deref(), Some("värde"));
    assert_eq!(connection.get("missing")?, None);
    let everything: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    connection.set(b"\x00\r\n\xff", &everything)?;
    let found: Vec<u8> = cmd("GET").arg(b"\x00\r\n\xff").query(connection)?;
    assert!(found == everything);
    connection.set("empty", "")?;
    assert_eq!(connection.get("empty")?.as_deref(), Some(""));
    let absent = || SetOptions::default().conditional_set(ExistenceCheck::NX);
    let present = || SetOptions::default().conditional_set(ExistenceCheck::XX);
    assert_eq!(connection.set_options("text", "x", absent())?, None);
    assert_eq!(connection.set_options("new", "x", present())?, None);
    assert_eq!(connection.set_options("new", "x", absent())?.as_deref(), Some("OK"));
    assert_eq!(connection.set_options("text", "y", present().get(true))?.as_deref(), Some("värde"));
    assert!(!connection.set_nx("text", "z")?);
    assert_eq!(connection.getset("text", "z")?.as_deref(), Some("y"));
    assert_eq!(connection.append("text", "zz")?, 3);
    assert_eq!(connection.setrange("text", 1, "ab")?, 3);
    assert_eq!(connection.getrange("text", 0, -1)?, "zab");
    assert_eq!(connection.strlen("text")?, 3);
    connection.mset(&[("a", "1"), ("b", "2.5")])?;
    let found: Vec<Option<String>> = connection.mget(&["a", "missing", "b"])?;
    assert_eq!(found, [Some("1".into()), None, Some("2.5".into())]);
    assert!(!connection.mset_nx(&[("c", "1"), ("a", "2")])?);
    assert_eq!(connection.get("c")?, None);
    Ok(())
}

fn numbers(connection: &mut Connection) -> Outcome {
    assert_eq!(connection.incr("number", 1)?, 1);
    assert_eq!(connection.incr("number", 9)?, 10);
    assert_eq!(connection.decr("number", 11)?, -1);
    let sum: f64 = cmd("INCRBYFLOAT").arg("float").arg(0.5).query(connection)?;
    assert_eq!(sum, 0.5);
    refused(connection.incr("text", 1));
    Ok(())
}

fn keys(connection: &mut Connection) -> Outcome {
    assert!(connection.exists(&["missing", "a"])? && !connection.exists("missing")?);
    assert_eq!(connection.key_type("a")?, ValueType::String);
    assert_eq!(connection.del(&["a", "b", "missing"])?, 2);
    assert_eq!(connection.unlink("new")?, 1);
    assert_eq!(connection.get_del("text")?.as_deref(), Some("zab"));
    connection.rename("number", "renamed")?;
    assert_eq!(connection.get_int("renamed")?, Some(-1));
    refused(connection.rename("missing", "other"));
    assert!(connection.copy("renamed", "copied", CopyOptions::default())?);
    assert_eq!(connection.get_int("copied")?, Some(-1));
    Ok(())
}

fn deadlines(connection: &mut Connection) -> Outcome {
    let soon = SetOptions::default().with_expiration(SetExpiry::EX(100));
    connection.set_options("soon", "x", soon)?;
    assert!(matches!(connection.ttl("soon")?, IntegerReplyOrNoOp::IntegerReply(91..=100)));
    let kept = SetOptions::default().with_expiration(SetExpiry::KEEPTTL);
    connection.set_options("soon", "y", kept)?;
    assert!(matches!(connection.ttl("soon")?, IntegerReplyOrNoOp::IntegerReply(91..=100)));
    assert!(connection.persist("soon")?);
    assert_eq!(connection.ttl("soon")?, IntegerReplyOrNoOp::ExistsButNotRelevant);
    assert_eq!(connection.ttl("missing")?, IntegerReplyOrNoOp::NotExists);
    assert!(connection.expire("soon", 100)? && !connection.expire("missing", 100)?);
    let later = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() + 1000;
    assert!(connection.expire_at("soon", later.try_into()?)?);
    assert_eq!(connection.expire_time("soon")?, usize::try_from(later)?);
    assert_eq!(connection.get_ex("soon", Expiry::PX(50_000))?.as_deref(), Some("y"));
    assert!(matches!(connection.pttl("soon")?, IntegerReplyOrNoOp::IntegerReply(40_000..=50_000)));
    connection.set_ex("soon", "z", 100)?;
    connection.pset_ex("soon", "z", 1)?;
    while connection.get("soon")?.is_some() {}
    Ok(())
}

fn databases(connection: &mut Connection) -> Outcome {
    connection.set("here", "yes")?;
    cmd("SELECT").arg(OTHER_DATABASE).exec(connection)?;
    connection.flushdb()?;
    assert_eq!(connection.get("here")?, None);
    connection.set("here", "no")?;
    connection.flushdb()?;
    cmd("SELECT").arg(DATABASE).exec(connection)?;
    assert_eq!(connection.get("here")?.as_deref(), Some("yes"));
    refused(cmd("SELECT").arg(1000).exec(connection));
    Ok(())
}

fn pipelines(connection: &mut Connection) -> Outcome {
    let mut commands = pipe();
    for n in 0..1000 {
        commands.set(format!("pipe:{n}"), n).ignore().get(format!("pipe:{n}"));
    }
    let found: Vec<u32> = commands.query(connection)?;
    assert!(found.into_iter().eq(0..1000));
    // An error is that command's; the others are done.
    let mut commands = pipe();
    commands.set("pipe", "text").incr("pipe", 1).get("pipe").ignore_errors();
    let found: Vec<RedisResult<Value>> = commands.query(connection)?;
    assert!(found[0].is_ok() && found[1].is_err(), "{found:?}");
    assert_eq!(found[2], Ok(Value::BulkString(b"text".into())));
    Ok(())
}

fn transactions(connection: &mut Connection, other: &mut Connection) -> Outcome {
    let mut commands = pipe();
    commands.atomic().set("balance", 10).ignore().incr("balance", 5).get("balance");
    assert_eq!(commands.query::<(u32, String)>(connection)?, (15, "15".into()));
    // Somebody else is faster, once.
    let mut seen = Vec::new();
    let doubled: (String,) = redis::transaction(connection, &["balance"], |connection, pipe| {
        let balance: u32 =
            connection.get_int("balance")?.expect("it was set").try_into().expect("it is small");
        if seen.is_empty() {
            other.incr("balance", 1)?;
        }
        seen.push(balance);
        pipe.set("balance", 2 * balance).ignore().get("balance").query(connection)
    })?;
    assert_eq!((seen, doubled), (vec![15, 16], ("32".to_owned(),)));
    let mut commands = pipe();
    commands.atomic().set("text", "abc").incr("text", 1).set("after", "1").ignore_errors();
    let found: Vec<RedisResult<Value>> = commands.query(connection)?;
    assert!(found[0].is_ok() && found[1].is_err() && found[2].is_ok(), "{found:?}");
    assert_eq!(connection.get("after")?.as_deref(), Some("1"));
    Ok(())
}

fn scans(connection: &mut Connection) -> Outcome {
    connection.flushdb()?;
    let names: BTreeSet<_> = (0..500).map(|n| format!("scan:{n}")).collect();
    connection.mset(&names.iter().map(|name| (name, "x")).collect::<Vec<_>>())?;
    connection.set("other", "y")?;
    let found: Vec<String> = connection.scan_match("scan:*")?.collect::<RedisResult<_>>()?;
    assert_eq!(found.len(), names.len());
    assert_eq!(BTreeSet::from_iter(found), names);
    assert_eq!(connection.scan::<String>()?.count(), 501);
    assert_eq!(connection.keys("scan:1?")?.len(), 10);
    assert_eq!(cmd("DBSIZE").query::<u32>(connection)?, 501);
    Ok(())
}

/// One connection of many tasks.
async fn shared(manager: &ConnectionManager) -> Outcome {
    let add = |mut manager: ConnectionManager| async move { manager.incr("sum", 1).await };
    let sums = try_join_all((0..1000).map(|_| add(manager.clone()))).await?;
    assert!(BTreeSet::from_iter(sums).into_iter().eq(1..=1000));
    Ok(())
}

/// The node closes the connection.
async fn mends_itself(manager: &mut ConnectionManager) -> Outcome {
    manager.set("kept", "yes").await?;
    cmd("QUIT").exec_async(manager).await?;
    let found = patiently(async || Ok(manager.get("kept").await?)).await?;
    assert_eq!(found.as_deref(), Some("yes"));
    Ok(())
}

/// It waits longer than a request may take: half a second is the library's default.
async fn managed(client: &Client) -> Outcome<ConnectionManager> {
    let config = ConnectionManagerConfig::new().set_response_timeout(Some(Duration::from_secs(10)));
    Ok(client.get_connection_manager_with_config(config).await?)
}

pub async fn connect(host: &str, port: u16) -> Outcome<impl Store> {
    managed(&client(host, port, "resp3")?).await
}

impl Store for ConnectionManager {
    async fn write(&mut self, key: &str, value: &str) -> Outcome {
        Ok(self.set(key, value).await?)
    }

    async fn read(&mut self, key: &str) -> Outcome<Option<String>> {
        Ok(self.get(key).await?)
    }
}
