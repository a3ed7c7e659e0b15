# The dashboard and the monitor as they would be sent to Datadog.

mock_provider "datadog" {
  mock_resource "datadog_dashboard_json" {
    defaults        = { url = "/dashboard/abc" }
    override_during = plan
  }
}

run "defaults" {
  command = plan

  assert {
    condition     = [for widget in jsondecode(datadog_dashboard_json.stats.dashboard).widgets : widget.definition.type] == ["note", "timeseries", "timeseries"]
    error_message = "A note and a graph for each of the two sample metrics; health is off."
  }

  assert {
    condition     = [for widget in slice(jsondecode(datadog_dashboard_json.stats.dashboard).widgets, 1, 3) : widget.definition.requests[0].queries[0].query] == ["avg:sample.stats{$job} by {job}", "avg:processed.data{$job} by {job}"]
    error_message = "The sample metrics by job."
  }

  assert {
    condition     = strcontains(datadog_monitor.processed_data.query, "anomalies(avg:processed.data{*} by {job},")
    error_message = "An anomaly monitor over each job."
  }

  assert {
    condition     = output.dashboard_url == "https://app.datadoghq.com/dashboard/abc"
    error_message = "The dashboard's address is one to open."
  }
}

run "prefix_site_and_health" {
  command = plan

  variables {
    ddg_site       = "us5.datadoghq.com"
    name           = "etl"
    metric_prefix  = "etl."
    notify         = "@oncall@example.com @slack-data"
    health_widgets = true
  }

  assert {
    condition     = [for widget in jsondecode(datadog_dashboard_json.stats.dashboard).widgets : widget.definition.type] == ["note", "timeseries", "timeseries", "note", "timeseries", "timeseries", "timeseries"]
    error_message = "Health is a note and three graphs more."
  }

  assert {
    condition     = strcontains(jsondecode(datadog_dashboard_json.stats.dashboard).widgets[3].definition.content, "AWS integration")
    error_message = "The health note says what it needs."
  }

  assert {
    condition     = strcontains(datadog_dashboard_json.stats.dashboard, "avg:etl.sample.stats{$job} by {job}") && strcontains(datadog_monitor.processed_data.query, "avg:etl.processed.data{*}")
    error_message = "Each metric has the prefix."
  }

  assert {
    condition     = strcontains(datadog_dashboard_json.stats.dashboard, "functionname:etl-metric-submit") && strcontains(datadog_dashboard_json.stats.dashboard, "queuename:etl-rejected")
    error_message = "Health is that of the stack by this name."
  }

  assert {
    condition     = endswith(datadog_monitor.processed_data.message, "@oncall@example.com @slack-data")
    error_message = "The monitor tells whom it was told to."
  }

  assert {
    condition     = output.dashboard_url == "https://us5.datadoghq.com/dashboard/abc"
    error_message = "Only three sites have app. before them."
  }
}

run "refused" {
  command = plan

  variables {
    ddg_site      = "app.datadoghq.com"
    name          = "Etl"
    metric_prefix = "etl"
    notify        = "oncall@example.com"
  }

  expect_failures = [
    var.ddg_site,
    var.name,
    var.metric_prefix,
    var.notify,
  ]
}
