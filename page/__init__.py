"""Parts of the page that app.py puts together: its networks, and the section that looks inside them."""
