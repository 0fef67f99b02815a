"""Trains MoECLIP on a pretrained CLIP and your own images, on whatever devices Accelerate finds.

    accelerate launch examples/train.py --clip openai/clip-vit-large-patch14-336 --data my_data --output outputs/my_model

It is `moeclip train` written out, for several processes and for changing.
"""

import argparse
import gc
import logging

from moeclip_hf import MoECLIPTrainer
from moeclip_hf.training.options import add_training_options
from moeclip_hf.training.recipe import (
    build_arguments,
    build_model,
    load_training_data,
    load_validation_data,
    make_recipe,
    save_result,
    warn_of_earlier_run,
)


def training_function(options):
    """Trains a model and saves it."""
    # The recipe: a file's values if one is named, and what the options say. The arguments choose devices, too.
    recipe = make_recipe(options)
    args = build_arguments(options, recipe)
    logging.basicConfig(format="%(message)s", level=logging.INFO if args.process_index == 0 else logging.ERROR)

    # A frozen CLIP with fresh experts, projections, image head and text adapter, and the processor of its inputs.
    model, processor = build_model(recipe)

    # Images, masks and object names. The validation data choose the best checkpoint; they are never trained on.
    train_dataset = load_training_data(options, recipe, processor)
    eval_dataset = load_validation_data(options, processor)

    # transformers' Trainer with the prompts' features computed once per object, and the experts in the log.
    trainer = MoECLIPTrainer(
        model, args, train_dataset=train_dataset, eval_dataset=eval_dataset, processing_class=processor
    )
    warn_of_earlier_run(options)
    trainer.train(resume_from_checkpoint=options.resume_from_checkpoint)

    # The best model if there are validation data, else the last one.
    save_result(trainer, options, recipe)
    trainer.end()


def main():
    """Reads the options, those of `moeclip train`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_training_options(parser)
    training_function(parser.parse_args())
    # A trainer refers to itself, so it outlives its function, and with it the threads by which CPU processes talk:
    # a thread that still runs when Python ends may abort the process.
    gc.collect()


if __name__ == "__main__":
    main()
