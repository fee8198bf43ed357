//! fred, with both versions of the protocol.

use std::collections::BTreeSet;
use std::fmt::Debug;

use fred::cmd;
use fred::prelude::*;
use fred::types::scan::ScanType;
use fred::types::{ExpireOptions, RespVersion};
use futures_util::TryStreamExt;
use futures_util::future::try_join_all;

use crate::{Outcome, Store};

/// Ours and the one beside it, both of which are emptied.
const DATABASE: u8 = 2;
const OTHER_DATABASE: u8 = 3;

async fn client(host: &str, port: u16, version: RespVersion) -> Outcome<Client> {
    let server = ServerConfig::new_centralized(host, port);
    let config = Config { server, version, database: Some(DATABASE), ..Config::default() };
    let client =
        Builder::from_config(config).set_policy(ReconnectPolicy::new_constant(0, 10)).build()?;
    client.init().await?;
    Ok(client)
}

pub async fn check(host: &str, port: u16) -> Outcome {
    for version in [RespVersion::RESP2, RespVersion::RESP3] {
        let one = client(host, port, version.clone()).await?;
        let other = client(host, port, version).await?;
        flush(&one).await?;
        names(&one).await?;
        strings(&one).await?;
        numbers(&one).await?;
        keys(&one).await?;
        deadlines(&one).await?;
        databases(&one).await?;
        pipelines(&one).await?;
        transactions(&one, &other).await?;
        scans(&one).await?;
        reconnects(&one).await?;
        flush(&one).await?;
        one.quit().await?;
        other.quit().await?;
    }
    Ok(())
}

/// Empties the selected database.
async fn flush(client: &Client) -> Outcome {
    Ok(client.custom::<(), Value>(cmd!("FLUSHDB"), vec![]).await?)
}

/// It is an error that the server said.
fn refused<T: Debug>(outcome: Result<T, Error>) -> String {
    let error = outcome.expect_err("it is to be refused");
    assert_eq!(error.kind(), &ErrorKind::Unknown, "{error}");
    error.details().to_owned()
}

async fn names(client: &Client) -> Outcome {
    assert_eq!(client.ping::<String>(None).await?, "PONG");
    client.client_setname("a-client").await?;
    assert_eq!(client.client_getname::<String>().await?, "a-client");
    assert!(client.client_id::<i64>().await? > 0);
    Ok(())
}

async fn strings(client: &Client) -> Outcome {
    client.set::<(), _, _>("text", "värde", None, None, false).await?;
    assert_eq!(client.get::<String, _>("text").await?, "värde");
    assert_eq!(client.get::<Option<String>, _>("missing").await?, None);
    let everything: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    let binary: &[u8] = b"\x00\r\n\xff";
    client.set::<(), _, _>(binary, everything.as_slice(), None, None, false).await?;
    assert!(client.get::<Vec<u8>, _>(binary).await? == everything);
    client.set::<(), _, _>("empty", "", None, None, false).await?;
    assert_eq!(client.get::<Option<String>, _>("empty").await?.as_deref(), Some(""));
    let set = async |key: &'static str, value: &'static str, options, get| {
        client.set::<Option<String>, _, _>(key, value, None, Some(options), get).await
    };
    assert_eq!(set("text", "x", SetOptions::NX, false).await?, None);
    assert_eq!(set("new", "x", SetOptions::XX, false).await?, None);
    assert_eq!(set("new", "x", SetOptions::NX, false).await?.as_deref(), Some("OK"));
    assert_eq!(set("text", "y", SetOptions::XX, true).await?.as_deref(), Some("värde"));
    assert!(!client.setnx::<bool, _, _>("text", "z").await?);
    assert_eq!(client.getset::<String, _, _>("text", "z").await?, "y");
    assert_eq!(client.append::<u32, _, _>("text", "zz").await?, 3);
    assert_eq!(client.setrange::<u32, _, _>("text", 1, "ab").await?, 3);
    assert_eq!(client.getrange::<String, _>("text", 0, 2).await?, "zab");
    assert_eq!(client.strlen::<u32, _>("text").await?, 3);
    client.mset(vec![("a", "1"), ("b", "2.5")]).await?;
    let found: Vec<Option<String>> = client.mget(vec!["a", "missing", "b"]).await?;
    assert_eq!(found, [Some("1".into()), None, Some("2.5".into())]);
    assert!(!client.msetnx::<bool, _>(vec![("c", "1"), ("a", "2")]).await?);
    assert_eq!(client.exists::<u32, _>("c").await?, 0);
    Ok(())
}

async fn numbers(client: &Client) -> Outcome {
    assert_eq!(client.incr::<i64, _>("number").await?, 1);
    assert_eq!(client.incr_by::<i64, _>("number", 9).await?, 10);
    assert_eq!(client.decr_by::<i64, _>("number", 11).await?, -1);
    assert_eq!(client.incr_by_float::<f64, _>("float", 0.5).await?, 0.5);
    let error = refused(client.incr::<i64, _>("text").await);
    assert!(error.starts_with("ERR value is not an integer"), "{error}");
    let nonsense = client.custom::<Value, Value>(cmd!("NONSENSE"), vec![]).await;
    let error = nonsense.expect_err("it is to be refused");
    assert!(error.details().contains("unknown command"), "{error}");
    Ok(())
}

async fn keys(client: &Client) -> Outcome {
    assert_eq!(client.exists::<u32, _>(vec!["a", "missing", "a"]).await?, 2);
    assert_eq!(client.r#type::<String, _>("a").await?, "string");
    assert_eq!(client.del::<u32, _>(vec!["a", "b", "missing"]).await?, 2);
    assert_eq!(client.unlink::<u32, _>("new").await?, 1);
    assert_eq!(client.getdel::<String, _>("text").await?, "zab");
    client.rename::<(), _, _>("number", "renamed").await?;
    assert_eq!(client.get::<i64, _>("renamed").await?, -1);
    refused(client.rename::<(), _, _>("missing", "other").await);
    assert!(client.copy::<bool, _, _>("renamed", "copied", None, false).await?);
    assert_eq!(client.get::<i64, _>("copied").await?, -1);
    Ok(())
}

async fn deadlines(client: &Client) -> Outcome {
    client.set::<(), _, _>("soon", "x", Some(Expiration::EX(100)), None, false).await?;
    assert!((91..=100).contains(&client.ttl::<i64, _>("soon").await?));
    client.set::<(), _, _>("soon", "y", Some(Expiration::KEEPTTL), None, false).await?;
    assert!(client.pttl::<i64, _>("soon").await? > 90_000);
    assert!(client.persist::<bool, _>("soon").await?);
    assert_eq!(client.ttl::<i64, _>("soon").await?, -1);
    assert_eq!(client.ttl::<i64, _>("missing").await?, -2);
    assert!(client.expire::<bool, _>("soon", 100, None).await?);
    assert!(!client.expire::<bool, _>("missing", 100, None).await?);
    assert!(!client.expire::<bool, _>("soon", 50, Some(ExpireOptions::GT)).await?);
    client.set::<(), _, _>("soon", "z", Some(Expiration::PX(1)), None, false).await?;
    while client.get::<Option<String>, _>("soon").await?.is_some() {}
    Ok(())
}

async fn databases(client: &Client) -> Outcome {
    client.set::<(), _, _>("here", "yes", None, None, false).await?;
    client.select(i64::from(OTHER_DATABASE)).await?;
    flush(client).await?;
    assert_eq!(client.get::<Option<String>, _>("here").await?, None);
    client.set::<(), _, _>("here", "no", None, None, false).await?;
    flush(client).await?;
    client.select(i64::from(DATABASE)).await?;
    assert_eq!(client.get::<String, _>("here").await?, "yes");
    assert!(client.select(200).await.is_err());
    Ok(())
}

async fn pipelines(client: &Client) -> Outcome {
    let pipeline = client.pipeline();
    for n in 0..1000 {
        pipeline.set::<(), _, _>(format!("pipe:{n}"), n, None, None, false).await?;
        pipeline.get::<(), _>(format!("pipe:{n}")).await?;
    }
    let found: Vec<String> = pipeline.all().await?;
    assert!(found.into_iter().eq((0..1000).flat_map(|n| ["OK".to_owned(), n.to_string()])));
    // An error is that command's; the others are done.
    let pipeline = client.pipeline();
    pipeline.set::<(), _, _>("pipe", "text", None, None, false).await?;
    pipeline.incr::<(), _>("pipe").await?;
    pipeline.get::<(), _>("pipe").await?;
    let found: Vec<Result<String, Error>> = pipeline.try_all().await;
    assert!(found[0].is_ok() && found[1].is_err(), "{found:?}");
    assert_eq!(found[2].as_deref(), Ok("text"));
    // Sent together, as everything is that is not waited for.
    let sums: Vec<u32> = try_join_all((0..1000).map(|_| client.incr("sum"))).await?;
    assert!(sums.into_iter().eq(1..=1000));
    Ok(())
}

async fn transactions(client: &Client, other: &Client) -> Outcome {
    let transaction = client.multi();
    transaction.set::<(), _, _>("balance", 10, None, None, false).await?;
    transaction.incr_by::<(), _>("balance", 5).await?;
    transaction.get::<(), _>("balance").await?;
    let found: (String, u32, String) = transaction.exec(true).await?;
    assert_eq!(found, ("OK".into(), 15, "15".into()));
    // Somebody else is faster.
    client.watch("balance").await?;
    other.incr::<(), _>("balance").await?;
    let transaction = client.multi();
    transaction.set::<(), _, _>("balance", 0, None, None, false).await?;
    assert_eq!(transaction.exec::<Value>(true).await?, Value::Null);
    assert_eq!(client.get::<u32, _>("balance").await?, 16);
    client.watch("balance").await?;
    let transaction = client.multi();
    transaction.set::<(), _, _>("balance", 32, None, None, false).await?;
    assert_eq!(transaction.exec::<Vec<String>>(true).await?, ["OK"]);
    assert_eq!(other.get::<u32, _>("balance").await?, 32);
    Ok(())
}

async fn scans(client: &Client) -> Outcome {
    flush(client).await?;
    let names: BTreeSet<_> = (0..500).map(|n| format!("scan:{n}")).collect();
    client.mset(names.iter().map(|name| (name.as_str(), "x")).collect::<Vec<_>>()).await?;
    client.set::<(), _, _>("other", "y", None, None, false).await?;
    let found =
        |pattern, kind| client.scan_buffered(pattern, Some(50), kind).try_collect::<Vec<Key>>();
    let some = found("scan:*", None).await?;
    assert_eq!(some.len(), names.len());
    let some: Option<BTreeSet<_>> = some.into_iter().map(Key::into_string).collect();
    assert_eq!(some, Some(names));
    assert_eq!(found("*", None).await?.len(), 501);
    assert_eq!(found("*", Some(ScanType::Hash)).await?.len(), 0);
    assert_eq!(client.dbsize::<u32>().await?, 501);
    Ok(())
}

/// The node closes the connection.
async fn reconnects(client: &Client) -> Outcome {
    client.set::<(), _, _>("kept", "yes", None, None, false).await?;
    let mut again = client.reconnect_rx();
    client.custom::<(), Value>(cmd!("QUIT"), vec![]).await?;
    again.recv().await?;
    assert_eq!(client.get::<String, _>("kept").await?, "yes");
    Ok(())
}

pub async fn connect(host: &str, port: u16) -> Outcome<impl Store> {
    client(host, port, RespVersion::RESP3).await
}

impl Store for Client {
    async fn write(&mut self, key: &str, value: &str) -> Outcome {
        Ok(self.set::<(), _, _>(key, value, None, None, false).await?)
    }

    async fn read(&mut self, key: &str) -> Outcome<Option<String>> {
        Ok(self.get(key).await?)
    }
}
