"""How the demo's tiny CLIP was made: procedural pictures, texts about them, and the training that ties the two.

`python -m moeclip_hf.demo.pretraining --output DIR` makes it anew. The pictures are drawn from formulas alone. Of the
demo's benchmark the training half's categories are seen, of its test half nothing.
"""
