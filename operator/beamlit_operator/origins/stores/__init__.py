"""Who asks the stores: a module for each kind of origin (``look``, ``read``), and what they share.

| module                                    | what it knows                                       |
|-------------------------------------------|-----------------------------------------------------|
| ``s3``, ``s3_client``, ``s3_versions``    | buckets; how they are asked; those with versions    |
| ``identity``                              | who asks S3: keys, a token, the node                |
| ``hub``, ``hub_session``, ``hub_xet``     | the Hugging Face Hub; how it is asked; its Xet      |
| ``web``                                   | web servers, and the client of all that speak HTTP  |
| ``oci``, ``ocilayers``                    | registries; what a manifest's layers hold           |
| ``claim``                                 | a folder of a PersistentVolumeClaim, where it is    |
| ``trust``                                 | whose certificates are believed                     |
| ``reach``, ``answers``                    | why a store cannot be had; what answers come to     |
| ``addresses``                             | where no origin may lead                            |
"""
