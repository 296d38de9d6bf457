"""How files arrive: what brings them, where they are put together, and what is told meanwhile.

| module                                                     | what it does                       |
|------------------------------------------------------------|------------------------------------|
| ``s3_transfer``, ``hub_transfer``, ``web_transfer``,       | bring a listing's files            |
| ``oci_transfer``                                           |                                    |
| ``arriving``                                               | one file on its way                |
| ``staging``, ``durable``                                   | the work area; what is on the disk |
| ``archives``, ``zstandard``, ``laying``                    | unpack; lay layers over each other |
| ``spelling``                                               | names that a volume takes for one  |
| ``cache``, ``turns``, ``eviction``                         | a folder that many share           |
| ``progress``, ``progress_server``, ``terminal``            | how far it is                      |
"""
