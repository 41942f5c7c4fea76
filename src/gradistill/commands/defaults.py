"""What holds where nobody names anything else. Nothing is imported, so that ``--help`` is quick."""

DEFAULT_METHOD = "coalition"
"""Of a student whose method is not named: the best measured in answers, and near the best in reasons."""
PROJECT_FILE = "gradistill.yaml"
"""What ``gradistill init`` writes and ``gradistill run`` reads."""
