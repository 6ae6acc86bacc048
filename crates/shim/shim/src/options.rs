//! Create's options: what containerd's configuration says of a runtime.
//!
//! They come as the options that runc's shim has, or, where containerd doesn't know the runtime's type
//! (`io.containerd.corten.v2`), as the table from its configuration file, in TOML, with the same keys.

use corten_task_api::proto::containerd::runc::v1::Options;
use corten_task_api::proto::cri::runtimeoptions::Options as Generic;
use corten_task_api::ttrpc::Status;
use prost::Message;
use prost_types::Any;

use crate::error;

/// Decodes them; none are the defaults.
pub(crate) fn decode(any: Option<&Any>) -> Result<Options, Status> {
    let Some(any) = any.filter(|any| !any.type_url.is_empty()) else { return Ok(Options::default()) };
    let failed = |e: prost::DecodeError| error::invalid(format!("options of type {}: {e}", any.type_url));
    // A host may stand before the type's name.
    match any.type_url.rsplit('/').next().unwrap_or_default() {
        "containerd.runc.v1.Options" => Options::decode(any.value.as_slice()).map_err(failed),
        "runtimeoptions.v1.Options" => generic(Generic::decode(any.value.as_slice()).map_err(failed)?),
        other => Err(error::invalid(format!(
            "options of type {other}: this shim takes containerd.runc.v1.Options or runtimeoptions.v1.Options"
        ))),
    }
}

fn generic(options: Generic) -> Result<Options, Status> {
    let body = match options.config_path.as_str() {
        "" => options.config_body,
        path => {
            std::fs::read(path).map_err(|e| error::io(format!("read the runtime's options {path}"), &e))?
        }
    };
    let text = String::from_utf8(body).map_err(|_| error::invalid("the runtime's options aren't text"))?;
    toml(&text)
}

/// A flat table of strings, numbers and booleans is all that there is: lines `Key = value`.
pub(crate) fn toml(text: &str) -> Result<Options, Status> {
    let mut options = Options::default();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let wrong = |why: &str| error::invalid(format!("the runtime's options: {line:?}: {why}"));
        let (key, value) = line.split_once('=').ok_or_else(|| wrong("not Key = value"))?;
        let (key, value) = (key.trim(), value.trim());
        let string = || {
            let inner = value.strip_prefix(['"', '\'']).and_then(|v| v.strip_suffix(['"', '\'']));
            inner.map(str::to_owned).ok_or_else(|| wrong("not a string"))
        };
        let boolean = || value.parse::<bool>().map_err(|_| wrong("neither true nor false"));
        let number = || value.parse::<u32>().map_err(|_| wrong("not a number"));
        match key {
            "BinaryName" => options.binary_name = string()?,
            "Root" => options.root = string()?,
            "SystemdCgroup" => options.systemd_cgroup = boolean()?,
            "NoPivotRoot" => options.no_pivot_root = boolean()?,
            "NoNewKeyring" => options.no_new_keyring = boolean()?,
            "ShimCgroup" => options.shim_cgroup = string()?,
            "IoUid" => options.io_uid = number()?,
            "IoGid" => options.io_gid = number()?,
            "CriuImagePath" => options.criu_image_path = string()?,
            "CriuWorkPath" => options.criu_work_path = string()?,
            "TypeUrl" | "ConfigPath" | "TaskApiAddress" | "TaskApiVersion" | "CriuPath" => {}
            _ => return Err(wrong("no such option")),
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use corten_task_api::services::any;
    use corten_task_api::ttrpc::Code;

    #[test]
    fn of_runcs_type() {
        let given = Options { binary_name: "crun".into(), systemd_cgroup: true, ..Options::default() };
        let mut any = any("containerd.runc.v1.Options", &given);
        assert_eq!(decode(Some(&any)).unwrap(), given);
        any.type_url.insert_str(0, "types.containerd.io/");
        assert_eq!(decode(Some(&any)).unwrap(), given);
        any.value = vec![0xff];
        assert_eq!(decode(Some(&any)).unwrap_err().code, Code::InvalidArgument);
        assert_eq!(decode(None).unwrap(), Options::default());
        assert_eq!(decode(Some(&Any::default())).unwrap(), Options::default());
    }

    #[test]
    fn as_cri_gives_the_table_of_an_unknown_type() {
        let body = "BinaryName = \"/opt/crun\"\nIoUid = 7\n# no\n\nSystemdCgroup = true\nRoot = ''\n";
        let generic = Generic { config_body: body.into(), ..Generic::default() };
        let options = decode(Some(&any("runtimeoptions.v1.Options", &generic))).unwrap();
        assert_eq!(
            (options.binary_name.as_str(), options.io_uid, options.systemd_cgroup),
            ("/opt/crun", 7, true)
        );
        for bad in ["Nope = 1", "SystemdCgroup = 1", "BinaryName = x", "IoUid = \"x\"", "[table]"] {
            let generic = Generic { config_body: bad.into(), ..Generic::default() };
            let error = decode(Some(&any("runtimeoptions.v1.Options", &generic))).unwrap_err();
            assert_eq!(error.code, Code::InvalidArgument, "{bad}");
        }
    }

    #[test]
    fn of_another_type_they_are_refused() {
        let error = decode(Some(&any("example.v1.Options", &()))).unwrap_err();
        assert!(
            error.code == Code::InvalidArgument && error.message.contains("example.v1.Options"),
            "{error}"
        );
    }
}
