//! Temporary.
use super::*;
/// x
#[derive(Debug)]
pub struct Mistakes(String);
impl std::fmt::Display for Mistakes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
impl ServiceSpec {
    /// x
    pub fn parse(text: &str) -> Result<ServiceSpec, Mistakes> {
        let value: serde_json::Value = serde_norway::from_str(text).map_err(|e| Mistakes(e.to_string()))?;
        let name =
            ServiceName::new(value["name"].as_str().unwrap_or_default()).map_err(|e| Mistakes(format!("name: {e}")))?;
        let mode = match value["cronSchedule"].as_str() {
            Some(s) => RunMode::Cron(CronSpec { schedule: s.into(), max_retries: 0, timeout_seconds: 0 }),
            None => RunMode::Service,
        };
        Ok(ServiceSpec {
            name,
            tag: value["tag"].as_str().unwrap_or("v1").into(),
            command: None,
            args: vec![],
            env: vec![],
            placement: Placement::Cluster { replicas: 1 },
            mode,
        })
    }
    /// x
    pub fn to_yaml(&self) -> String {
        format!("name: {}\ntag: {}\n", self.name, self.tag)
    }
}
