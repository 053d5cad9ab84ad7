import sys

from edgesite.cli.main import main

sys.exit(main())
