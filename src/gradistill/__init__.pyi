"""The public names, each listed once: editors and type checkers read this file, and ``__init__.py`` loads from it."""

from gradistill.auditing.attributions import RowAttributions as RowAttributions
from gradistill.auditing.attributions import attribute as attribute
from gradistill.auditing.loyalty_measures import Loyalty as Loyalty
from gradistill.auditing.loyalty_measures import loyalty as loyalty
from gradistill.auditing.predictions import Predictions as Predictions
from gradistill.auditing.predictions import predict_rows as predict_rows
from gradistill.commands.audit import audit as audit
from gradistill.commands.audit_choice import AuditChoice as AuditChoice
from gradistill.commands.augment import augment as augment
from gradistill.commands.distill import distill as distill
from gradistill.commands.explain import explain as explain
from gradistill.commands.export import export_model as export_model
from gradistill.commands.export_choice import ExportChoice as ExportChoice
from gradistill.commands.finetune import finetune as finetune
from gradistill.commands.init import init as init
from gradistill.commands.predict import predict as predict
from gradistill.commands.pretrain import pretrain as pretrain
from gradistill.commands.run import run as run
from gradistill.commands.run_result import AuditResult as AuditResult
from gradistill.commands.run_result import RunResult as RunResult
from gradistill.commands.signal_stores import StoreChoice as StoreChoice
from gradistill.commands.signal_stores import StoreSettings as StoreSettings
from gradistill.commands.store_signals import store_signals as store_signals
from gradistill.commands.text_predictor import TextPredictor as TextPredictor
from gradistill.commands.text_predictor import load_predictor as load_predictor
from gradistill.commands.token_predictor import TokenPredictor as TokenPredictor
from gradistill.data.collator import Collator as Collator
from gradistill.data.data_choice import DataChoice as DataChoice
from gradistill.data.labels import align_labels as align_labels
from gradistill.data.splits import Splits as Splits
from gradistill.data.splits import load_splits as load_splits
from gradistill.data.tasks import TASKS as TASKS
from gradistill.data.tasks import Task as Task
from gradistill.data.teacher_answers import TeacherAnswers as TeacherAnswers
from gradistill.data.tokenization import Encoded as Encoded
from gradistill.data.tokenization import encode as encode
from gradistill.errors import GradistillError as GradistillError
from gradistill.models.loading import load_classifier as load_classifier
from gradistill.models.loading import load_tokenizer as load_tokenizer
from gradistill.models.student import student_from_teacher as student_from_teacher
from gradistill.objectives.term import Term as Term
from gradistill.recipe.resolver import load_recipe as load_recipe
from gradistill.recipe.schema import Recipe as Recipe
from gradistill.training.trainer import DistillationTrainer as DistillationTrainer

__version__: str
