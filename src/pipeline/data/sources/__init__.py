"""Where files come from: found, downloaded, verified, unpacked."""
