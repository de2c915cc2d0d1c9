//! Commands that read and write keys: `kv` without transactions, `txn` with one each.

use bytes::Bytes;
use cribwork_client::{Client, ClientError, KvPair, TransactOptions};
use cribwork_types::KeyRange;

use crate::args::{Data, Format};
use crate::failure::Failure;
use crate::output::{line, print, print_fields};
use crate::run::Context;
use crate::shapes::{Acknowledged, Pair, pairs_table};

/// The raw API.
pub(crate) async fn kv(context: &Context, data: Data) -> Result<(), Failure> {
    let raw = context.connect().await?.raw();
    match data {
        Data::Get { key } => {
            let found = raw.get(key.clone()).await?;
            print_value(context, key, found)
        }
        Data::Put { key, value } => acknowledge(context, raw.put(key, value).await),
        Data::Delete { key } => acknowledge(context, raw.delete(key).await),
        Data::Scan { start, end, limit } => {
            print_pairs(context, raw.scan(KeyRange { start, end }, limit).await?)
        }
    }
}

/// The transactional API.
pub(crate) async fn txn(context: &Context, data: Data) -> Result<(), Failure> {
    let client = context.connect().await?;
    match data {
        Data::Get { key } => {
            let found = client.begin().await?.get(key.clone()).await?;
            print_value(context, key, found)
        }
        Data::Put { key, value } => {
            acknowledge(context, write(context, &client, key, Some(value.into())).await)
        }
        Data::Delete { key } => acknowledge(context, write(context, &client, key, None).await),
        Data::Scan { start, end, limit } => {
            let transaction = client.begin().await?;
            print_pairs(context, transaction.scan(KeyRange { start, end }, limit).await?)
        }
    }
}

/// Writes or, without a value, removes a key; again if it meets another transaction.
async fn write(
    context: &Context,
    client: &Client,
    key: Bytes,
    value: Option<Bytes>,
) -> Result<(), ClientError> {
    let options = TransactOptions { timeout: context.global.timeout(), ..Default::default() };
    let written = client.transact(options, |transaction| {
        let (key, value) = (key.clone(), value.clone());
        async move {
            match value {
                Some(value) => transaction.put(key, value),
                None => transaction.delete(key),
            }
        }
    });
    written.await.map(|_| ())
}

fn print_value(context: &Context, key: Bytes, found: Option<Bytes>) -> Result<(), Failure> {
    let Some(value) = found else {
        let message = format!("key {} does not exist", key.escape_ascii());
        let hint = "kv and txn keep separate keys: was it written by the other one?";
        return Err(Failure::new("CW-CLI-ABSENT", message, hint));
    };
    match context.global.output {
        Format::Table => line(&value),
        Format::Json => print_fields(Format::Json, &Pair::new((key, value))),
    }
}

fn print_pairs(context: &Context, pairs: Vec<KvPair>) -> Result<(), Failure> {
    let pairs: Vec<_> = pairs.into_iter().map(Pair::new).collect();
    print(context.global.output, &pairs, pairs_table)
}

/// A write has no data to print, except for a script that expects a document.
fn acknowledge(context: &Context, written: Result<(), ClientError>) -> Result<(), Failure> {
    written?;
    match context.global.output {
        Format::Table => Ok(()),
        Format::Json => print_fields(Format::Json, &Acknowledged { acknowledged: true }),
    }
}
