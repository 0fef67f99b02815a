"""Evaluates a trained model, and sends it to the Hub with its results on the card.

    python examples/push_to_hub.py outputs/my_model user/my_model --test-data my_test_data
    python examples/push_to_hub.py outputs/my_model user/my_model --test-data my_test_data --dry-run outputs/repository

It is `moeclip evaluate` and `moeclip push` written out, for changing.
"""

import argparse
import tempfile
from pathlib import Path

from transformers import AutoModel, AutoProcessor

import moeclip_hf  # noqa: F401 - its import makes the Auto classes know the model
from moeclip_hf.data import load_anomaly_dataset
from moeclip_hf.evaluation import evaluate_model, format_results, write_results
from moeclip_hf.hub import build_repository, push_repository, write_repository


def main():
    """Reads the options, evaluates and pushes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="model folder, as training wrote it")
    parser.add_argument("repo_id", help="user/name on the Hub")
    parser.add_argument("--test-data", required=True, help="data that the model was not trained on")
    parser.add_argument("--dry-run", help="write the repository into this new folder instead of sending it")
    parser.add_argument("--private", action="store_true", help="the repository must be private")
    options = parser.parse_args()

    # Figures are stated from a results file alone, so that each of them can be traced.
    model = AutoModel.from_pretrained(options.folder).eval()
    processor = AutoProcessor.from_pretrained(options.folder)
    results = evaluate_model(model, processor, load_anomaly_dataset(options.test_data))
    results["meta"]["data"] = options.test_data
    print(format_results(results))

    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "test_data.json"
        write_results(results, file)
        # Weights, processor, code, record, recipe, results and the card: path in the repository -> file or content.
        files = build_repository(options.folder, options.repo_id, results=[file])

    if options.dry_run:
        write_repository(files, options.dry_run)
        print(f"{options.dry_run} holds what would be sent.")
    else:
        print(push_repository(files, options.repo_id, private=options.private))


if __name__ == "__main__":
    main()
