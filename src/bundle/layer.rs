use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

/// What one path of a layer is.
#[derive(Debug, Clone)]
enum Node {
    Folder(u32),
    Link(String),
    Bytes(u32, Vec<u8>),
    File(u32, PathBuf),
}

/// Collects the files of an image layer and writes them as a tar file whose bytes depend on nothing else.
#[derive(Debug, Clone, Default)]
pub struct Files(BTreeMap<String, Node>);

impl Files {
    /// A folder; parents of files come by themselves.
    pub fn folder(&mut self, path: &str, mode: u32) {
        self.put(path, Node::Folder(mode));
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &str, to: &str) {
        self.put(path, Node::Link(to.to_owned()));
    }

    /// A small file.
    pub fn bytes(&mut self, path: &str, mode: u32, bytes: impl Into<Vec<u8>>) {
        self.put(path, Node::Bytes(mode, bytes.into()));
    }

    /// A file with the content of `from`.
    pub fn file(&mut self, path: &str, mode: u32, from: &Path) {
        self.put(path, Node::File(mode, from.to_owned()));
    }

    fn put(&mut self, path: &str, node: Node) {
        let mut parent = path;
        while let Some((above, _)) = parent.rsplit_once('/') {
            self.0.entry(above.to_owned()).or_insert(Node::Folder(0o755));
            parent = above;
        }
        self.0.insert(path.to_owned(), node);
    }

    /// Writes the layer.
    pub fn write(&self, to: &Path) -> io::Result<()> {
        let mut out = tar::Builder::new(io::BufWriter::with_capacity(1 << 20, File::create(to)?));
        for (path, node) in &self.0 {
            append(&mut out, path, node)?;
        }
        out.into_inner()?.flush()
    }
}

fn append<W: Write>(out: &mut tar::Builder<W>, path: &str, node: &Node) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    match node {
        Node::Folder(mode) => {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(*mode);
            out.append_data(&mut header, format!("{path}/"), io::empty())
        }
        Node::Link(to) => {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_mode(0o777);
            out.append_link(&mut header, path, to)
        }
        Node::Bytes(mode, bytes) => {
            header.set_mode(*mode);
            header.set_size(bytes.len() as u64);
            out.append_data(&mut header, path, bytes.as_slice())
        }
        Node::File(mode, from) => {
            let file = File::open(from)?;
            header.set_mode(*mode);
            header.set_size(file.metadata()?.len());
            let size = header.size()?;
            out.append_data(&mut header, path, file.take(size))
        }
    }
}
