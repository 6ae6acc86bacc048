//! Sparse files as GNU tar writes them in its own format.

use std::io::BufRead;

use tar::{GnuExtSparseHeader, GnuSparseHeader, Header};

use super::{Archive, BLOCK, Extent};
use crate::name::show;
use crate::{Error, Result};

impl<R: BufRead> Archive<R> {
    /// The map of a sparse file of which `stored` bytes are in the archive, and the file's length.
    ///
    /// The map may go on in blocks after the header. Extents must be in order, must not overlap and must hold exactly the
    /// bytes that are stored: a map that says otherwise is a trap for whoever allocates by it.
    pub(super) fn sparse(&mut self, header: &Header, stored: u64) -> Result<(Vec<Extent>, u64)> {
        let bad = |archive: &Self, reason: &str| Error::Refused {
            entry: show(&archive.name),
            reason: format!("its map of holes is wrong: {reason}"),
        };
        let Some(gnu) = header.as_gnu() else { return Err(bad(self, "not a GNU header")) };
        let length = gnu.real_size().map_err(|_| bad(self, "no length"))?;
        let mut extents = Vec::new();
        self.extents(&gnu.sparse, &mut extents)?;
        let mut extended = gnu.is_extended();
        while extended {
            let Some(block) = self.block()? else { return Err(self.truncated(BLOCK)) };
            let mut more = GnuExtSparseHeader::new();
            more.as_mut_bytes().copy_from_slice(block.as_bytes());
            self.extents(more.sparse(), &mut extents)?;
            extended = more.is_extended();
        }
        let mut end = 0;
        let mut sum = 0u64;
        for extent in &extents {
            if extent.offset < end {
                return Err(bad(self, "extents overlap"));
            }
            end = extent.offset.checked_add(extent.length).ok_or_else(|| bad(self, "too long"))?;
            sum += extent.length;
        }
        if end > length || sum != stored {
            return Err(bad(self, "it doesn't match the data"));
        }
        Ok((extents, length))
    }

    fn extents(&self, headers: &[GnuSparseHeader], extents: &mut Vec<Extent>) -> Result<()> {
        for header in headers.iter().filter(|header| !header.is_empty()) {
            let (Ok(offset), Ok(length)) = (header.offset(), header.length()) else {
                return Err(Error::Refused {
                    entry: show(&self.name),
                    reason: "its map of holes holds something else than numbers".to_owned(),
                });
            };
            extents.push(Extent { offset, length });
            if extents.len() as u64 * 24 > self.limits.header_bytes {
                return Err(self.limit("bytes of extended headers", self.limits.header_bytes));
            }
        }
        Ok(())
    }
}
