"""The services around the claims process, each a process of its own: fraud scoring, photo assessment, bank and post.

README.md has their contracts. `switches` makes one slow, wrong or absent; `serving` starts one.
"""
