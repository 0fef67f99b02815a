"""How the demo's tiny CLIP was made: procedural pictures, texts about them, and the training that ties the two.

`python -m moeclip_hf.demo.pretraining --output DIR` makes it anew. The pictures are drawn here, from formulas of this
package alone: the demo's benchmark, its categories and its defects are never seen.
"""
