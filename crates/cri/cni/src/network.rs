//! Attaches pods to the network and detaches them.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nix::sys::statfs::{NSFS_MAGIC, statfs};
use serde_json::Value;

use crate::{
    CniResult, Error, Network, PodNetwork, Result,
    cache::Record,
    config,
    plugin::{Call, Verb},
    result::Invalid,
};

/// Where things are, and how long they may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CniConfig {
    /// Network configurations; usually `/etc/cni/net.d`.
    pub conf_dir: PathBuf,
    /// Plugins; usually `/opt/cni/bin` and `/usr/lib/cni`. The first directory that has a plugin wins.
    pub bin_dirs: Vec<PathBuf>,
    /// Records of attachments. Must survive a reboot: address leases do.
    pub cache_dir: PathBuf,
    /// How long one plugin may take for one pod.
    pub timeout: Duration,
}

impl Default for CniConfig {
    fn default() -> Self {
        Self {
            conf_dir: "/etc/cni/net.d".into(),
            bin_dirs: vec!["/opt/cni/bin".into(), "/usr/lib/cni".into()],
            cache_dir: "/var/lib/corten/cni".into(),
            timeout: Duration::from_secs(60),
        }
    }
}

/// The pods' network. Cheap to clone. Operations on the same pod must not overlap; others may.
#[derive(Debug, Clone)]
pub struct Cni(Arc<CniConfig>);

impl Cni {
    /// Touches nothing: configurations are read when they are needed, so that edits are live at once.
    #[must_use]
    pub fn new(config: CniConfig) -> Self {
        Self(Arc::new(config))
    }

    /// Whether pods can get a network: there is a valid configuration, its plugins are installed, and they don't
    /// object (STATUS, from CNI 1.1 on).
    ///
    /// # Errors
    /// The reason, for people: names the directory, file or plugin.
    pub async fn status(&self) -> Result<()> {
        let (network, _) = config::load(&self.0.conf_dir)?;
        let asks = network.at_least(1, 1);
        for index in 0..network.plugins.len() {
            let call = self.call(Verb::Status, &network, index, None, Path::new(""), None);
            call.find()?;
            if asks {
                call.run().await?;
            }
        }
        Ok(())
    }

    /// Attaches a pod. The loopback interface isn't touched: [`PodNamespaces`](crate::PodNamespaces) has brought it up.
    ///
    /// # Errors
    /// No usable configuration, or a plugin's failure. What the plugins had done by then has been taken back; if
    /// that failed too, the record stays and [`del`](Self::del) tries again.
    pub async fn add(&self, pod: &PodNetwork) -> Result<CniResult> {
        let (network, broken) = config::load(&self.0.conf_dir)?;
        for error in &broken {
            tracing::warn!(%error, used = network.name, "skipped a network configuration");
        }
        let mut record = Record::new(network, pod.clone());
        record.save(&self.0.cache_dir)?;
        match self.add_recorded(&mut record).await {
            Ok(result) => Ok(result),
            Err(error) => {
                if let Err(undo) = self.del_recorded(&record).await {
                    tracing::warn!(pod = pod.id, error = %undo, "network could not be taken back, DEL will retry");
                }
                Err(error)
            }
        }
    }

    async fn add_recorded(&self, record: &mut Record) -> Result<CniResult> {
        let mut last: Option<Value> = None;
        for index in 0..record.network.plugins.len() {
            let netns = &record.pod.netns;
            let pod = Some(&record.pod);
            let call = self.call(Verb::Add, &record.network, index, pod, netns, last.as_ref());
            last = Some(call.run().await?);
        }
        let raw = last.unwrap_or_default();
        let result = CniResult::parse(raw.clone()).map_err(|invalid| unusable(record, invalid, &raw))?;
        record.result = Some(raw);
        record.save(&self.0.cache_dir)?;
        Ok(result)
    }

    /// Detaches a pod, with the configuration that it was attached with. Does nothing for a pod that isn't
    /// attached; works when its namespace is gone.
    ///
    /// # Errors
    /// The first failure of a plugin; the others have run all the same. The record stays, so that a retry runs
    /// them again.
    pub async fn del(&self, pod: &PodNetwork) -> Result<()> {
        match Record::read(&self.0.cache_dir, &pod.id)? {
            Some(record) => self.del_recorded(&record).await,
            None => Ok(()),
        }
    }

    async fn del_recorded(&self, record: &Record) -> Result<()> {
        let netns = if is_namespace(&record.pod.netns) { record.pod.netns.as_path() } else { Path::new("") };
        let prev = record.result.as_ref().filter(|_| record.network.at_least(0, 4));
        let mut failure = None;
        for index in (0..record.network.plugins.len()).rev() {
            let call = self.call(Verb::Del, &record.network, index, Some(&record.pod), netns, prev);
            if let Err(error) = call.run().await {
                failure.get_or_insert(error);
            }
        }
        match failure {
            Some(error) => Err(error),
            None => Record::remove(&self.0.cache_dir, &record.pod.id),
        }
    }

    /// Asks the plugins whether the pod's network is as ADD left it (CHECK, from CNI 0.4 on).
    ///
    /// # Errors
    /// What the first unhappy plugin says.
    pub async fn check(&self, pod: &PodNetwork) -> Result<()> {
        let Some(record) = Record::read(&self.0.cache_dir, &pod.id)? else { return Ok(()) };
        if record.network.disable_check || !record.network.at_least(0, 4) {
            return Ok(());
        }
        let (netns, prev) = (&record.pod.netns, record.result.as_ref());
        for index in 0..record.network.plugins.len() {
            self.call(Verb::Check, &record.network, index, Some(&record.pod), netns, prev).run().await?;
        }
        Ok(())
    }

    /// What ADD gave the pod, from its record; none if it isn't attached.
    ///
    /// # Errors
    /// [`Error::Record`], or the record's result isn't one.
    pub fn cached(&self, id: &str) -> Result<Option<CniResult>> {
        let Some(record) = Record::read(&self.0.cache_dir, id)? else { return Ok(None) };
        let Some(raw) = record.result.clone() else { return Ok(None) };
        CniResult::parse(raw.clone()).map(Some).map_err(|invalid| unusable(&record, invalid, &raw))
    }

    /// Detaches every recorded pod whose id is not in `live`: what crashes and reboots left behind. Returns the
    /// ids that were detached, and what failed.
    ///
    /// # Errors
    /// The records can't be listed.
    pub async fn collect(&self, live: &HashSet<String>) -> Result<(Vec<String>, Vec<Error>)> {
        let (mut gone, mut failed) = (Vec::new(), Vec::new());
        for id in Record::ids(&self.0.cache_dir)? {
            if live.contains(&id) {
                continue;
            }
            match self.del(&PodNetwork { id: id.clone(), ..PodNetwork::default() }).await {
                Ok(()) => gone.push(id),
                Err(error) => failed.push(error),
            }
        }
        Ok((gone, failed))
    }

    fn call<'a>(
        &'a self,
        verb: Verb,
        network: &'a Network,
        index: usize,
        pod: Option<&'a PodNetwork>,
        netns: &'a Path,
        prev_result: Option<&'a Value>,
    ) -> Call<'a> {
        let CniConfig { bin_dirs, timeout, .. } = self.0.as_ref();
        let plugin = &network.plugins[index];
        Call { verb, network, plugin, pod, netns, prev_result, bin_dirs, timeout: *timeout }
    }
}

/// The error for a result that can't be used.
fn unusable(record: &Record, invalid: Invalid, raw: &Value) -> Error {
    let id = record.pod.id.clone();
    match invalid {
        Invalid::Address(address) => Error::Address { network: record.network.name.clone(), id, address },
        Invalid::Json(source) => {
            let plugin =
                record.network.plugins.last().map(config::plugin_type).unwrap_or_default().to_owned();
            Error::Output { plugin, command: Verb::Add.name(), id, stdout: raw.to_string(), source }
        }
    }
}

/// Whether a namespace is mounted there: after a reboot only the file may be left.
fn is_namespace(path: &Path) -> bool {
    statfs(path).is_ok_and(|fs| fs.filesystem_type() == NSFS_MAGIC)
}
