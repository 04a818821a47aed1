//! Reads the columns of a recording.

use base64::prelude::{BASE64_STANDARD, Engine};
use concurrent_futures::Recording;
use serde_json::Value;
use std::collections::HashMap;

/// A recording as its document has it.
pub(crate) struct Document {
    pub(crate) all: Value,
    pub(crate) tasks: Vec<HashMap<String, f64>>,
    pub(crate) waits: Vec<HashMap<String, f64>>,
}

impl Document {
    pub(crate) fn of(recording: &Recording) -> Self {
        let mut text = Vec::new();
        recording.write_columns(&mut text).unwrap();
        let all: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(all["format"], "concurrent-futures recording");
        Self {
            tasks: table(&all["tasks"]),
            waits: table(&all["waits"]),
            all,
        }
    }

    pub(crate) fn text(&self, row: &HashMap<String, f64>, column: &str) -> &str {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let index = row[column] as usize;
        self.all["strings"][index].as_str().unwrap()
    }

    /// Returns the rows whose function's name has this in it.
    pub(crate) fn named(&self, part: &str) -> Vec<&HashMap<String, f64>> {
        let is_named = |row: &&HashMap<String, f64>| self.text(row, "name").contains(part);
        self.tasks.iter().filter(is_named).collect()
    }

    pub(crate) fn worker(&self, row: &HashMap<String, f64>) -> &Value {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let index = row["worker"] as usize;
        &self.all["workers"][index - 1]
    }
}

fn table(table: &Value) -> Vec<HashMap<String, f64>> {
    let count = usize::try_from(table["count"].as_u64().unwrap()).unwrap();
    let mut rows = vec![HashMap::new(); count];
    for (name, column) in table["columns"].as_object().unwrap() {
        let kind = column["type"].as_str().unwrap();
        let values: Vec<f64> = if let Some(constant) = column.get("constant") {
            vec![constant.as_f64().unwrap_or(f64::NAN); count]
        } else {
            let text = column["base64"].as_str().unwrap();
            values(kind, &BASE64_STANDARD.decode(text).unwrap())
        };
        assert_eq!(values.len(), count, "{name}");
        for (row, value) in rows.iter_mut().zip(values) {
            row.insert(name.clone(), value);
        }
    }
    rows
}

fn values(kind: &str, bytes: &[u8]) -> Vec<f64> {
    fn each<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        let (chunks, []) = bytes.as_chunks::<N>() else {
            panic!("{} bytes", bytes.len());
        };
        chunks.iter().map(|chunk| value(*chunk)).collect()
    }
    match kind {
        "f64" => each(bytes, f64::from_le_bytes),
        "f32" => each(bytes, |bytes| f32::from_le_bytes(bytes).into()),
        "u32" => each(bytes, |bytes| u32::from_le_bytes(bytes).into()),
        "u8" => each(bytes, |bytes| u8::from_le_bytes(bytes).into()),
        _ => panic!("{kind}"),
    }
}

/// Returns the events of a recording's trace, after a look at each by the rules of the trace event format.
pub(crate) fn trace(recording: &Recording) -> Vec<Value> {
    let mut text = Vec::new();
    recording.write_trace(&mut text).unwrap();
    let all: Value = serde_json::from_slice(&text).unwrap();
    let events = all["traceEvents"].as_array().unwrap().clone();
    let mut open = HashMap::new();
    for event in &events {
        let phase = event["ph"].as_str().unwrap();
        assert!(
            event["name"].is_string() && event["pid"].is_u64(),
            "{event}"
        );
        if phase != "M" {
            assert!(event["ts"].is_number() && event["tid"].is_u64(), "{event}");
        }
        match phase {
            "M" => {
                let name = event["name"].as_str().unwrap();
                assert!(["process_name", "thread_name"].contains(&name), "{event}");
                assert!(event["args"]["name"].is_string(), "{event}");
            }
            "X" => assert!(event["dur"].as_f64().unwrap() >= 0.0, "{event}"),
            "B" => {}
            "b" => *open.entry(event["id"].to_string()).or_insert(0) += 1,
            "e" => *open.get_mut(&event["id"].to_string()).unwrap() -= 1,
            "s" | "f" => assert!(event["id"].is_u64() && event["cat"].is_string(), "{event}"),
            "i" => assert!(
                ["g", "p", "t"].contains(&event["s"].as_str().unwrap()),
                "{event}"
            ),
            "C" => {
                let values = event["args"].as_object().unwrap();
                assert!(values.values().all(Value::is_number), "{event}");
            }
            _ => panic!("{event}"),
        }
    }
    assert!(open.values().all(|open| (0..=1).contains(open)), "{open:?}");
    events
}
