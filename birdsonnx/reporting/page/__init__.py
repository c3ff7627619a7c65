"""One self-contained HTML file about a training, an evaluation, or predictions to look through.

Records of what is to be read (`evaluated`, `training`, `review`) are made of figures and photos; `rendering`
fills `templates/` with them. The page asks the network for nothing, and says what matters without JavaScript
too.
"""
