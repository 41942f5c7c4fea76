"""The prompt around a teacher's texts: from an option, a recipe, a project file or a ``PromptedTeacher``."""

from __future__ import annotations

from typing import Any

from gradistill.commands.given_models import each_changed, is_several, members, refuse_prompt_of
from gradistill.data import TASKS, DataChoice
from gradistill.data.prompt_template import PromptedTeacher, PromptTemplate
from gradistill.data.teacher_answers import TeacherAnswers
from gradistill.errors import RecipeError
from gradistill.recipe import Recipe


def prompted(teacher: Any, template: str | None) -> Any:
    """The teacher with the prompt, or each of several with it; without a template the teacher unchanged.

    Raises RecipeError for a teacher that cannot get a prompt: a function, and a file of answers.

    Example: ``prompted("runs/qwen", "Review: {text}")``
    """
    if template is None:
        return teacher
    if is_several(teacher):
        return each_changed(teacher, lambda each: prompted(each, template))
    if isinstance(teacher, TeacherAnswers):
        raise RecipeError(
            "a prompt was given around the texts of a file of answers, which were answered already",
            expected="a model as teacher",
            remedy="leave the prompt out",
        )
    refuse_prompt_of(teacher)
    return PromptedTeacher(teacher, template)


def settled_prompt(teacher: Any, recipe: Recipe) -> tuple[Any, Recipe]:
    """The teacher with its prompt, and the recipe with the same prompt, so that ``recipe.yaml`` records it.

    Raises RecipeError for two different prompts, and what ``prompted`` raises.
    """
    template = recipe.teacher.template
    if not isinstance(teacher, PromptedTeacher):
        return prompted(teacher, template), recipe
    if template not in (None, teacher.template):
        raise RecipeError(
            f"The teacher has the prompt {teacher.template!r}, and the recipe's teacher.template is {template!r}.",
            expected="one prompt",
            remedy="leave one of them out",
        )
    refuse_prompt_of(teacher.model)
    return teacher, recipe.with_template(teacher.template)


def refuse_other_columns(teacher: Any, data: DataChoice) -> None:
    """Raise RecipeError for a prompt without the text columns, if options or the task name the columns."""
    task = TASKS.get(data.task) if isinstance(data.task, str) else data.task
    columns = data.columns or (task.text_columns if task is not None else None)
    for each in members(teacher):
        if columns is not None and isinstance(each, PromptedTeacher):
            PromptTemplate.of(each.template, columns)


def refuse_prompt(recipe: Recipe, what: str) -> None:
    """Raise RecipeError for a recipe with a prompt, in a command whose teacher must read the student's tokens."""
    if recipe.teacher.template is not None:
        raise RecipeError(
            f"teacher.template is set, and {what} has a teacher that reads the same tokens as the student",
            expected="a recipe without a prompt",
            remedy="leave teacher.template out, or use gradistill distill",
        )
