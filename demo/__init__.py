"""The demo behind `make demo`: real photographs through the real jobs, and a page to look at.

photographs.py   which photographs, and their shards
results.py       what the archive and the decoded files say about each picture
page.py          the HTML page
strip.py         a small picture for documents
failures.py      another, of what `lite` gets wrong
sheet.py         rows of pictures with captions, for these two
__main__.py      the order of things
"""
