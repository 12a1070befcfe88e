//! `hotbay:channel/sql`: statements of the operator. Answers are part of the batch like any other read. Parameters leave the broker as
//! effects do, and their bytes count as an effect of their own.

use std::sync::Arc;

use crate::plugin::bindings::hotbay::channel::sql as wit;
use crate::plugin::state::State;
use crate::protocol::sql::{Rows, SqlError, Value};

impl wit::Host for State {
    async fn query(
        &mut self,
        statement: String,
        parameters: Vec<wit::Value>,
    ) -> wasmtime::Result<Result<wit::Rows, wit::Error>> {
        let channel = Arc::clone(self.channel()?.0);
        let parameters: Vec<Value> = parameters.into_iter().map(take).collect();
        self.charge(parameters.iter().map(Value::bytes).sum())?;
        let answer = self.waiting_for_sql(channel.query(&statement, parameters)).await?;
        Ok(answer.map(give).map_err(refuse))
    }
}

fn take(value: wit::Value) -> Value {
    match value {
        wit::Value::Null => Value::Null,
        wit::Value::Boolean(value) => Value::Boolean(value),
        wit::Value::Integer(value) => Value::Integer(value),
        wit::Value::Real(value) => Value::Real(value),
        wit::Value::Text(value) => Value::Text(value),
        wit::Value::Bytes(value) => Value::Bytes(value),
    }
}

fn give(rows: Rows) -> wit::Rows {
    let value = |value| match value {
        Value::Null => wit::Value::Null,
        Value::Boolean(value) => wit::Value::Boolean(value),
        Value::Integer(value) => wit::Value::Integer(value),
        Value::Real(value) => wit::Value::Real(value),
        Value::Text(value) => wit::Value::Text(value),
        Value::Bytes(value) => wit::Value::Bytes(value),
    };
    let row = |row: Vec<Value>| row.into_iter().map(value).collect();
    wit::Rows { columns: rows.columns, rows: rows.rows.into_iter().map(row).collect() }
}

fn refuse(error: SqlError) -> wit::Error {
    match error {
        SqlError::NotGranted => wit::Error::NotGranted,
        SqlError::BadParameters(reason) => wit::Error::BadParameters(reason),
        SqlError::Timeout => wit::Error::Timeout,
        SqlError::Unavailable => wit::Error::Unavailable,
        SqlError::TooLarge => wit::Error::TooLarge,
        SqlError::Failed => wit::Error::Failed,
    }
}
