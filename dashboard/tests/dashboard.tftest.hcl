# The dashboard, monitors and metadata that would be sent to Datadog.

mock_provider "datadog" {
  mock_resource "datadog_dashboard_json" {
    defaults        = { url = "/dashboard/abc" }
    override_during = plan
  }
}

run "sample" {
  command = plan

  assert {
    condition = jsondecode(datadog_dashboard_json.stats.dashboard).widgets[*].definition.type == ["note", "timeseries", "timeseries"] && {
      for widget in slice(jsondecode(datadog_dashboard_json.stats.dashboard).widgets, 1, 3) : widget.definition.title => widget.definition.requests[0].queries[0].query
      } == {
      "processed.data by job" = "avg:processed.data{$job} by {job}"
      "sample.stats by job"   = "avg:sample.stats{$job} by {job}"
    }
    error_message = "A note and a graph for each of the two sample metrics; health is off."
  }

  assert {
    condition     = [for monitor in datadog_monitor.metric : monitor.query] == ["avg(last_4h):anomalies(avg:processed.data{*} by {job}, 'agile', 3, direction='both', interval=60, alert_window='last_15m', count_default_zero='true') >= 1"]
    error_message = "An anomaly monitor over each job, for files that come every minute."
  }

  assert {
    condition     = output.dashboard_url == "https://app.datadoghq.com/dashboard/abc" && length(datadog_metric_metadata.metric) == 0
    error_message = "The output is the dashboard's whole URL, and there is no metadata."
  }
}

run "variables_before_the_file" {
  command = plan

  variables {
    ddg_site       = "ap1.datadoghq.com"
    name           = "mine"
    metric_prefix  = "my_"
    health_widgets = true
  }

  assert {
    condition     = strcontains(datadog_dashboard_json.stats.dashboard, "avg:my_sample.stats{$job} by {job}") && keys(datadog_monitor.metric) == ["my_processed.data unusual"]
    error_message = "Each of the sample's metrics has the prefix."
  }

  assert {
    condition     = jsondecode(datadog_dashboard_json.stats.dashboard).widgets[*].definition.type == ["note", "timeseries", "timeseries", "note", "timeseries", "timeseries", "timeseries", "timeseries"] && strcontains(jsondecode(datadog_dashboard_json.stats.dashboard).widgets[3].definition.content, "AWS integration")
    error_message = "The health section is a note with its requirement, and four graphs."
  }

  assert {
    condition     = strcontains(datadog_dashboard_json.stats.dashboard, "sum:datadogstats.submitted{functionname:mine-metric-submit,!job:*}.as_count()") && strcontains(datadog_dashboard_json.stats.dashboard, "queuename:mine-rejected")
    error_message = "The health section is about the stack of this name, and counts no watched job's file twice."
  }

  assert {
    condition     = output.dashboard_url == "https://ap1.datadoghq.com/dashboard/abc"
    error_message = "This site's URL doesn't begin with app."
  }
}

run "metrics_of_the_settings_file" {
  command = plan

  variables {
    settings_file    = "tests/settings.json"
    notify           = "@oncall@example.com @slack-data"
    health_widgets   = true
    describe_metrics = true
  }

  assert {
    condition = { for widget in slice(jsondecode(datadog_dashboard_json.stats.dashboard).widgets, 1, 4) : widget.definition.title => [widget.definition.requests[0].display_type, widget.definition.requests[0].queries[0].query] } == {
      "etl.queue by job"   = ["line", "avg:etl.queue{$job} by {job}"]
      "etl.rows by job"    = ["bars", "sum:etl.rows{$job} by {job}.as_count()"]
      "etl.seconds by job" = ["line", "avg:etl.seconds{$job} by {job}"]
    }
    error_message = "Each metric has a graph by job; a count has bars."
  }

  assert {
    condition     = strcontains(datadog_dashboard_json.stats.dashboard, "\"Files of nightly\"") && strcontains(datadog_dashboard_json.stats.dashboard, "functionname:etl-metric-submit") && startswith(output.dashboard_url, "https://us5.")
    error_message = "Name and site are from the file, and the watched job has a graph."
  }

  assert {
    condition = { for key, monitor in datadog_monitor.metric : key => "${monitor.query}; ${monitor.monitor_thresholds[0].critical}; ${monitor.name}" } == {
      "etl.queue unusual" = "avg(last_2d):anomalies(avg:etl.queue{*} by {job}, 'agile', 3, direction='both', interval=300, alert_window='last_2h', count_default_zero='true') >= 1; 1; etl: etl.queue of {{job.name}} is unusual"
      "etl.rows above"    = "max(last_48h):sum:etl.rows{*} by {job}.as_count() > 1000000; 1000000; etl: etl.rows of {{job.name}} is above 1000000"
      "etl.rows below"    = "min(last_48h):sum:etl.rows{*} by {job}.as_count() < 0.5; 0.5; etl: etl.rows of {{job.name}} is below 0.5"
      "etl.seconds above" = "max(last_30m):max:etl.seconds{*} by {job} > 600; 600; etl: etl.seconds of {{job.name}} is above 600"
    }
    error_message = "A monitor for each threshold and anomaly, over twice the time between two files."
  }

  assert {
    condition     = datadog_monitor.metric["etl.queue unusual"].message == "Ask the data team. @oncall@example.com @slack-data" && strcontains(datadog_monitor.metric["etl.rows above"].message, " First look at ") && endswith(datadog_monitor.metric["etl.rows above"].message, "/dashboard/abc. @oncall@example.com @slack-data")
    error_message = "A monitor has its own message or says what to look at first, and notifies these addresses."
  }

  assert {
    condition = { for name, metadata in datadog_metric_metadata.metric : name => join(", ", [for value in [metadata.metric, metadata.type, metadata.unit, metadata.per_unit, metadata.short_name, metadata.description] : coalesce(value, "-")]) } == {
      "etl.queue"   = "etl.queue, gauge, -, -, -, -"
      "etl.rows"    = "etl.rows, count, row, file, rows, Rows loaded"
      "etl.seconds" = "etl.seconds, gauge, -, -, -, -"
    }
    error_message = "Each metric has its metadata."
  }
}

run "wrong_settings_file" {
  command = plan

  variables {
    settings_file = "tests/wrong.json"
  }

  expect_failures = [datadog_dashboard_json.stats]

  assert {
    condition = local.problems == [
      "job nightly: a job can have mapping and silent_after_hours",
      "a: type must be gauge or count",
      "a: unknown attribute: typ",
      "a: unknown unit: seconds (see units.tf: second, byte, row)",
      "b: unknown attribute of its monitor: about",
      "f: unknown attribute: (no object)",
      "b: a threshold needs a number as above, as below, or as both",
      "c: an anomaly can't have above or below",
      "c: an anomaly needs a job that writes at least every hour: use a threshold instead",
      "d: a monitor's kind must be threshold or anomaly",
      "d: every_hours must be a number over 0 and at most 84",
      "e: a threshold needs a number as above, as below, or as both",
      "e: every_hours must be a number over 0 and at most 84",
    ]
    error_message = "The message lists all faults, each with its metric."
  }
}

run "wrong_variables" {
  command = plan

  variables {
    settings_file = "tests/missing.json"
    ddg_site      = "app.datadoghq.com"
    name          = "Etl"
    metric_prefix = "9etl"
    notify        = "oncall@example.com"
  }

  expect_failures = [
    var.settings_file,
    var.ddg_site,
    var.name,
    var.metric_prefix,
    var.notify,
  ]
}
