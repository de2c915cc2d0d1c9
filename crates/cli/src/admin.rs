//! Commands that ask about the cluster or change its shape.

use bytes::Bytes;
use cribwork_types::{RangeId, StoreId};

use crate::args::{ConfigCommand, Init};
use crate::failure::Failure;
use crate::output::{print, print_fields};
use crate::run::Context;
use crate::shapes::{
    Created, Node, Range, Setting, Split, Status, Transferred, nodes_table, ranges_table,
    settings_table,
};

pub(crate) async fn init(context: &Context, init: Init) -> Result<(), Failure> {
    let admin = context.admin().with_timeout(context.global.init_timeout());
    let made = admin.init(init.ranges).await?;
    print_fields(context.global.output, &Created::from(made))
}

pub(crate) async fn status(context: &Context) -> Result<(), Failure> {
    let status = context.admin().status().await?;
    print_fields(context.global.output, &Status::from(status))
}

pub(crate) async fn nodes(context: &Context) -> Result<(), Failure> {
    let nodes = context.admin().nodes().await?;
    let nodes: Vec<_> = nodes.into_iter().map(Node::from).collect();
    print(context.global.output, &nodes, nodes_table)
}

pub(crate) async fn ranges(context: &Context) -> Result<(), Failure> {
    let ranges = context.admin().ranges().await?;
    let ranges: Vec<_> = ranges.into_iter().map(Range::from).collect();
    print(context.global.output, &ranges, |ranges| ranges_table(ranges))
}

pub(crate) async fn range(context: &Context, id: u64) -> Result<(), Failure> {
    let found = context.admin().range(RangeId(id)).await?;
    let range = found.map(Range::from).ok_or_else(|| {
        let message = format!("range {id} does not exist");
        Failure::new("CW-CLI-NOT-FOUND", message, "list what there is: cribwork ranges")
    })?;
    print(context.global.output, &range, |range| ranges_table([range]))
}

pub(crate) async fn split(context: &Context, key: Bytes) -> Result<(), Failure> {
    let split = Split::from(context.admin().split(key).await?);
    print(context.global.output, &split, |split| ranges_table(split.ranges()))
}

pub(crate) async fn transfer_leader(context: &Context, id: u64, store: u64) -> Result<(), Failure> {
    context.admin().transfer_leader(RangeId(id), StoreId(store)).await?;
    print_fields(context.global.output, &Transferred { range: id, store })
}

pub(crate) async fn config(context: &Context, command: ConfigCommand) -> Result<(), Failure> {
    let (key, value) = match &command {
        ConfigCommand::Get { key } => (key.as_deref().unwrap_or_default(), None),
        ConfigCommand::Set { key, value } => (key.as_str(), Some(value.as_str())),
    };
    let settings = context.admin().config(key, value).await?;
    let settings: Vec<_> = settings.into_iter().map(Setting::from).collect();
    print(context.global.output, &settings, settings_table)
}
