"""Load the agent magics in every IPython kernel and console of this person. An opt-in: nothing installs it.

Copy it to the folder that `ipython locate profile default` prints, or add its last line to the file of that name there.
"""

c = get_config()  # noqa: F821 - IPython gives it
c.InteractiveShellApp.extensions.append("llmproc_nb")
