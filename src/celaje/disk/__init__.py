"""Block storage: volumes, snapshots, chunk stores, image formats. All I/O of a store passes one file layer."""
