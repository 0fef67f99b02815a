"""Makes `python -m moeclip_hf.cli` the same as `moeclip`."""

import sys

from moeclip_hf.cli import main


sys.exit(main())
