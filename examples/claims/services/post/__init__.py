"""The post: mails and text messages end on a page, each once.

`mailbox` keeps them, `letters` reads their text, `service` has the HTTP and the page.
"""
