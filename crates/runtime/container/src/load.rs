//! From a bundle on disk to a plan, or to all that is wrong with it.

use std::{fs, path::Path};

use corten_bundle::Bundle;

use crate::{
    CreateOptions, Error, Result, accommodate, default_ids,
    descriptors::listen_fds,
    plan::{Circumstances, Plan},
    privilege::{in_user_namespace, is_unprivileged},
};

/// Loads the bundle. A config that comes through a pipe may be waited for.
pub(crate) fn read(options: &CreateOptions) -> Result<Bundle> {
    bundle(&options.bundle, options.config.as_deref())
}

/// Plans, or tells everything that's wrong with the bundle.
pub(crate) fn plan(mut bundle: Bundle, options: &CreateOptions) -> Result<(Bundle, Plan)> {
    for remark in accommodate::translate(&mut bundle) {
        tracing::warn!("{remark}");
    }
    default_ids::complete(&mut bundle.spec);
    let circumstances = Circumstances {
        listen_fds: listen_fds(),
        unprivileged: is_unprivileged(),
        in_user_namespace: in_user_namespace(),
        like_crun: options.like_crun,
    };
    let mut problems: Vec<String> = bundle.problems().iter().map(ToString::to_string).collect();
    match Plan::new(&bundle.path, &bundle.spec, circumstances) {
        Ok(plan) if problems.is_empty() => {
            remark(&bundle, &plan, options);
            Ok((bundle, plan))
        }
        planned => {
            // Both look at some of the same things, one of them more closely.
            let more = planned.err().unwrap_or_default();
            let field = |problem: &str| problem.split(':').next().unwrap_or_default().to_owned();
            let seen: Vec<String> = problems.iter().map(|problem| field(problem)).collect();
            let told = |problem: &String| {
                let field = field(problem);
                let inside = |rest: &str| rest.is_empty() || rest.starts_with(['.', '[']);
                seen.iter().any(|seen| seen.strip_prefix(&field).is_some_and(inside))
            };
            problems.extend(more.into_iter().filter(|problem| !told(problem)));
            Err(Error::Config { bundle: bundle.path, problems })
        }
    }
}

/// The bundle in `dir`, with the config from another file if there is one.
pub(crate) fn bundle(dir: &Path, config: Option<&Path>) -> Result<Bundle> {
    config
        .map_or_else(|| Bundle::load(dir), |config| Bundle::load_as(dir, config))
        .map_err(|e| Error::Bundle { path: dir.to_owned(), source: e.into() })
}

/// What isn't wrong, but somebody may wonder about.
fn remark(bundle: &Bundle, plan: &Plan, options: &CreateOptions) {
    for path in &plan.devices.left_out {
        tracing::warn!(
            "linux.devices: {path} is not made: /dev is bind mounted from the host, and has it or not"
        );
    }
    if tracing::enabled!(tracing::Level::DEBUG) {
        let config = options.config.as_deref().unwrap_or(Path::new("config.json"));
        // What came through a pipe can't be read again.
        let path = Some(bundle.path.join(config)).filter(|path| path.is_file());
        let json = path.and_then(|path| fs::read(path).ok()).unwrap_or_default();
        for field in corten_bundle::unknown_fields(&json) {
            tracing::debug!("config.json: {field} is not known, and ignored");
        }
    }
}
