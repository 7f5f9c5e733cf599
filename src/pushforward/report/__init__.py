"""Pictures and pages of fitted flows: ``plots.plot_fit``, ``demo.run_demo``, ``html.render_page``.

Its modules import matplotlib, scikit-learn and jinja2 when they are first used, not before.
"""
