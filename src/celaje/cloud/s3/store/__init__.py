"""The object store: buckets, objects and multipart uploads on one host, durable and without HTTP.

    CELAJE_HOME/cloud/s3/
      objects.sqlite3         buckets, objects by key, uploads, bodies of small objects     database.py
      contents/ab/abcd…       bodies of larger objects and of parts, by a random id         contents.py
      master-key              what the keys of encrypted bodies are wrapped with            encryption.py
      lock                    flock: one process has the store                              object_store.py

What was acknowledged is durable, and what is visible is whole. A large body is written to a file that nothing refers
to, made durable, and only then named by a row; rows are committed in groups (`group_commit.py`), so that many small
requests share a sync. A crash leaves at most files that no row names; they are swept away at the next start.

The rows have a database of their own, beside the control plane's: they come by the thousand a second, are committed by
a thread of their own, and neither should a transaction of RunInstances wait for them nor they for it.
"""
