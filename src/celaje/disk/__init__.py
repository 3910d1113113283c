"""Block storage: volumes, snapshots, chunk stores, image formats. All I/O of a store passes one file layer (`files`).

    store = VolumeStore()                                     CELAJE_HOME; VolumeStore(home) elsewhere     (volumes.py)
    store.create("data", size=8 << 30)                        empty; each of these is instant
    store.create("root", source=ImageSource(path, sha256))    over an image's raw disk file; size=… may be larger
    store.create("copy", source=SnapshotSource("snap-…"))     over a snapshot; hydrates as it is read
    store.list(), store.describe("data" or "vol-…")           VolumeDescription: id, name, size, base, created
    store.remove("data")                                      InputError while it is open anywhere

    volume = store.open("data", read_only=False)              Volume: a BlockBackend; one opener (flock)   (volume.py)
    volume.grow(16 << 30)                                     also in use; whoever shows it to a guest tells the guest
    volume.hydrate(progress, stopped)                         fetch what is still absent; for a thread of the caller's
    store.hydrated("data")                                    what part of its snapshot a volume has, from 0 to 1
    snapshot = store.snapshot(volume, progress)               incremental, crash-consistent; blocks this thread only
    task = store.snapshots.begin(volume); task.run(progress)  the same in two: the instant, then the copying
    store.snapshots.list(), .describe(id), .remove(id)        published manifests                       (snapshots.py)
    store.sweep()                                             chunks that nothing refers to any more        (sweep.py)

    cut = volume.cut()                                        the contents at one instant, for whoever copies  (cut.py)
    cut.changed(), cut.read(chunk), cut.close()               them elsewhere, such as a machine snapshot

What is wrong with what a person gave is a CelajeError. A BlockBackend's calls raise OSError: EIO for a chunk that is
missing or altered (the log names it), ENOSPC for a full disk. The guest gets an I/O error, and nothing that was
acknowledged is lost.
"""
